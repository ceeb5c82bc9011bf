//go:build e2e && linux

package units

import (
	"fmt"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/e2e/harness"
)

func TestKeysOfRetries(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{
		"exiting": exiting,
		"hsu.yaml": `
defaults:
  kind: managed
  environment: {NOTES: "${NOTES}"}
  restart: {backoff: {initial: 1ms, max: 5ms}, budget: {restarts: 0, within: 1h}}
units:
  known: {command: [./exiting, "7"], restart: {policy: on-failure, success_codes: [0, 7]}}
  unknown: {command: [./exiting, "0"], restart: {policy: on-failure, success_codes: [7], retry_failed: never}}
  retried: {command: [./exiting, "3"], restart: {retry_failed: 1s}}
  given-up: {command: [./exiting, "3"], restart: {retry_failed: never}}
  slower:
    command: [./exiting, "3"]
    restart: {backoff: {initial: 10ms, max: 100ms, factor: 5}, budget: {restarts: 4}, retry_failed: never}
`,
	})
	s.environ = []string{"NOTES=" + s.Record}
	m := s.start()
	for _, id := range []string{"unknown-0", "given-up-0", "slower-0"} {
		s.await(id, "has failed", func(w harness.Worker) bool { return w.Status == "failed" })
	}
	s.await("known-0", "has completed", func(w harness.Worker) bool { return w.Status == "completed" })
	// After 1 s and 2 s, each less a quarter at most.
	harness.WaitFor(t, "retried-0 is tried again twice", func() error {
		if n := s.starts("retried-0"); n < 3 {
			return fmt.Errorf("%d starts", n)
		}
		return nil
	})
	for worker, want := range map[string]int{"known-0": 1, "unknown-0": 1, "given-up-0": 1, "slower-0": 5} {
		if got := s.starts(worker); got != want {
			t.Errorf("%s was started %d times, want %d", worker, got, want)
		}
	}
	var delays []time.Duration
	for _, line := range m.Logged("worker backoff") {
		if line.Worker == "slower-0" {
			delays = append(delays, line.RestartIn.Duration)
		}
	}
	full := []time.Duration{10, 50, 100, 100} // ms
	if len(delays) != len(full) {
		t.Fatalf("the delays of slower-0 are %v, want about %d ms", delays, full)
	}
	for i, delay := range delays {
		if most := full[i] * time.Millisecond; delay > most || delay < most/2 {
			t.Errorf("delay %d of slower-0 is %s, want %s less a quarter and the time of its record", i, delay, most)
		}
	}
	m.Stop()
	s.WantNothingLeft()
}

//go:build e2e && linux

package units

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// ending is a program that waits for the signal USR1 and then takes the time of its argument to end. It ignores
// SIGTERM.
const ending = `#!/bin/sh
trap '' TERM
trap 'sleep "$1"; echo ended >"$NOTES/$HSU_WORKER_ID"; exit 0' USR1
echo waiting
while :; do sleep 0.05; done
`

func TestKeysOfAStop(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{
		"ending": ending,
		"hsu.yaml": `
defaults: {kind: managed, start: {settle: 300ms}, environment: {NOTES: "${NOTES}"}}
units:
  signaled: {command: [./ending, "0"], stop: {signal: USR1, grace: 1m}}
  slow: {command: [./ending, "0.5"], stop: {signal: SIGUSR1, grace: 1m}}
  late: {command: [./ending, "60"], stop: {signal: USR1, grace: 200ms}}
  stubborn: {command: [./ending, "0"], stop: {grace: 100ms}}
`,
	})
	s.environ = []string{"NOTES=" + s.Record}
	m := s.start()
	s.awaitUp(4)
	m.Stop()
	for worker, want := range map[string]bool{
		"signaled-0": true, "slow-0": true, "late-0": false, "stubborn-0": false,
	} {
		if _, err := os.Stat(filepath.Join(s.Record, worker)); (err == nil) != want {
			t.Errorf("%s has ended by itself: %t, want %t", worker, err == nil, want)
		}
	}
	for worker, grace := range map[string]string{"late-0": "200ms", "stubborn-0": "100ms"} {
		want := fmt.Sprintf(`"msg":"worker stop timed out","worker":%q,"grace":%q`, worker, grace)
		if log := m.Log(); !strings.Contains(log, want) {
			t.Errorf("%s was not killed after %s:\n%s", worker, grace, log)
		}
	}
	if n := len(m.Logged("worker stop timed out")); n != 2 {
		t.Errorf("%d workers were killed, want 2", n)
	}
	s.WantNothingLeft()
}

// exiting exits with its first argument, and counts its starts by lines of a file.
const exiting = `#!/bin/sh
echo start >>"$NOTES/$HSU_WORKER_ID"
exit "$1"
`

// starts returns the number of times that a worker was started, by its own record.
func (s *site) starts(worker string) int {
	text, _ := os.ReadFile(filepath.Join(s.Record, worker))
	return strings.Count(string(text), "start\n")
}

func TestKeysOfRestarts(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{
		"exiting": exiting,
		"hsu.yaml": `
defaults:
  kind: managed
  environment: {NOTES: "${NOTES}"}
  restart: {backoff: {initial: 1ms, max: 5ms}, budget: {restarts: 2, within: 1h}, retry_failed: 1h}
  stop: {grace: 1s}
units:
  always: {command: [./exiting, "0"]}
  on-failure: {command: [./exiting, "3"], restart: {policy: on-failure}}
  unlucky: {command: [./exiting, "3"], restart: {budget: {restarts: 0}}}
  success: {command: [./exiting, "0"], restart: {policy: on-failure}}
  once: {command: [./exiting, "3"], restart: {policy: never}}
  deaf: {kind: integrated, command: ["${UNIT}", -as, deaf], start: {timeout: 300ms}}
  settling: {command: [sleep, "1000000"], start: {settle: 1h, timeout: 2h}}
`,
	})
	s.environ = []string{"NOTES=" + s.Record, "UNIT=" + harness.Programs.Unit}
	m := s.start()
	failed := func(w harness.Worker) bool { return w.Status == "failed" }
	for worker, want := range map[string]struct {
		starts int
		reason string
	}{
		"always-0": {3, "restart budget 2/1h used up"}, "on-failure-0": {3, "exited with code 3"},
		"unlucky-0": {1, "restart budget 0/1h used up"},
	} {
		w := s.await(worker, "has failed", failed)
		if got := s.starts(worker); got != want.starts || !strings.Contains(w.Reason, want.reason) {
			t.Errorf("%s was started %d times, reason %q, want %+v", worker, got, w.Reason, want)
		}
	}
	if w := s.await("deaf-0", "has failed", failed); w.Restarts != 2 || !strings.Contains(w.Reason, "within 300ms") {
		t.Errorf("deaf-0 = %+v, want the start timeout as its reason", w)
	}
	for worker, status := range map[string]string{"success-0": "completed", "once-0": "failed"} {
		w := s.await(worker, "has ended", func(w harness.Worker) bool { return w.Status == status })
		if got := s.starts(worker); got != 1 || w.Restarts != 0 {
			t.Errorf("%s was started %d times: %+v, want once", worker, got, w)
		}
	}
	s.await("settling-0", "is starting", func(w harness.Worker) bool { return w.Status == "starting" && w.PID > 0 })
	m.Stop()
	s.WantNothingLeft()
}

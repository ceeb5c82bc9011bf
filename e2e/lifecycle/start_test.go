//go:build e2e && linux

package lifecycle

import (
	"fmt"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

func TestWorkerThatNeverGetsReadyFailsWithWhatItDidNotDo(t *testing.T) {
	for habit, test := range map[string]struct{ timeout, want string }{
		"deaf": {"200ms", "did not open port %d within 200ms"},
		// The timeout is long, because the unit has to open its port within it, also on a loaded machine. It is shorter
		// than the 5 s after which hsu-core gives up a connection: that would be an answer.
		"mute": {"4s", "opened port %d but answered no Ping within 4s"},
	} {
		t.Run(habit, func(t *testing.T) {
			t.Parallel()
			h := harness.NewHost(t)
			h.Flags = append(h.Units(habit), "--start-timeout", test.timeout, "--restart-backoff", "1ms",
				"--restart-budget", "2/5m")
			m := h.Start()
			w := h.AwaitFailed(1).Workers[0]
			if w.Incarnation != 3 || w.Restarts != 2 || w.PID != 0 {
				t.Errorf("the worker = %+v, want it started three times and gone", w)
			}
			_, reason, _ := strings.Cut(w.Reason, "used up: ")
			if before, after, _ := strings.Cut(test.want, "%d"); !strings.Contains(reason, before) ||
				!strings.Contains(reason, after) {
				t.Errorf("reason = %q, want %q", w.Reason, test.want)
			}
			h.WantNothingLeft()
			m.Stop()
		})
	}
}

func TestStatusSaysWhatAStartingWorkerIsWaitedFor(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = harness.ShortGrace(h.Units("mute", "deaf"))
	m := h.Start()
	h.AwaitWorkers(2, "are waited for", func(w harness.Worker) bool {
		return w.ID == "worker-0" && w.WaitingFor == "Ping: no answer yet" ||
			w.ID == "worker-1" && strings.HasSuffix(w.WaitingFor, ": connection refused")
	})
	// The answers may be others at the next moment, and these again later.
	harness.WaitFor(t, "people are told so", func() error {
		r := h.CLI("worker", "list")
		for _, want := range []string{
			"worker-0 is starting: waiting for Ping: no answer yet", "worker-1 is starting: waiting for port ",
		} {
			if !strings.Contains(r.Stdout, want) {
				return fmt.Errorf("worker list = %q, want %q in it", r.Stdout, want)
			}
		}
		return nil
	})
	m.Stop()
	h.WantNothingLeft()
}

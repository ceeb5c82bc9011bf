//go:build e2e && linux

package units

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
)

// A program that tidies the folder of the logs leaves a worker with a log that nobody can read.
func TestDeletedLogIsReportedOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": `
units:
  loud: {kind: managed, command: [sh, -c, "while :; do echo line; sleep 0.1; done"], start: {settle: 20ms}}
`})
	m := s.start()
	first := s.awaitUp(1).Worker(t, "loud-0")
	log := filepath.Join(s.State, "logs", "loud-0.log")
	logged := func(m *harness.Master) func() error {
		return func() error {
			if n := len(m.Logged("worker log deleted")); n != 1 {
				return fmt.Errorf("it is logged %d times", n)
			}
			return nil
		}
	}
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "the deleted log is logged", logged(m))
	// The next master, which adopts the worker, finds it too, once.
	m.Kill()
	m = s.start()
	harness.WaitFor(t, "the next master logs it", logged(m))
	s.KillWorker(first.PID)
	s.await("loud-0", "runs again", func(w harness.Worker) bool { return up(w) && w.PID != first.PID })
	harness.WaitFor(t, "the new log grows", func() error {
		text, err := os.ReadFile(log)
		if err == nil && !strings.Contains(string(text), "line\n") {
			err = fmt.Errorf("it is %q", text)
		}
		return err
	})
	// A log that is moved is lost too.
	if err := os.Rename(log, log+".old"); err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "the moved log is logged", func() error {
		if n := len(m.Logged("worker log deleted")); n != 2 {
			return fmt.Errorf("it is logged %d times", n)
		}
		return nil
	})
	m.Stop()
	s.WantNothingLeft()
	snap, err := store.ReadSnapshot(s.State)
	if err != nil {
		t.Fatal(err)
	}
	if last := len(snap.Events); !slices.ContainsFunc(snap.Events, func(e records.Event) bool {
		return e.Worker == "loud-0" && e.Type == "log-deleted"
	}) {
		t.Errorf("none of %d events is about the deleted log", last)
	}
}

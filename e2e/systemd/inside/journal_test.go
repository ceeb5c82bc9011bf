//go:build inside

package inside

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// Without the journal, the master's output has no reader, and its pipe breaks: only the log is lost.
func TestJournalThatIsStopped(t *testing.T) {
	journal := []string{
		"systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-journald-audit.socket",
		"systemd-journald.service",
	}
	first := install(t)
	l := startLoad(t)
	defer l.end()
	t.Cleanup(func() { _ = exec.Command("systemctl", append([]string{"start"}, journal...)...).Run() })
	command(t, "systemctl", append([]string{"stop"}, journal...)...)
	if got := command(t, "systemctl", "show", "--value", "-p", "ActiveState",
		"systemd-journald.service"); got != "inactive" {
		t.Fatalf("the journal is %s", got)
	}
	for round := range 3 {
		// The master logs this.
		if err := syscall.Kill(first.Workers[round].PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		before := l.acknowledged.Load()
		waitFor(t, 30*time.Second, func() error {
			s, err := dump(t)
			if err != nil {
				return err
			}
			if w := s.Workers[round]; w.Status != "running" || w.Incarnation != 2 {
				return fmt.Errorf("%+v", w)
			}
			if l.acknowledged.Load() < before+20 {
				return errors.New("no requests are answered")
			}
			return nil
		})
	}
	if s, err := dump(t); err != nil || s.MasterPID != first.MasterPID {
		t.Errorf("the master is process %d, and was %d: %v", s.MasterPID, first.MasterPID, err)
	}
	if got := property(t, "ActiveState"); got != "active" {
		t.Errorf("the service is %s", got)
	}
}

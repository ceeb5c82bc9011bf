//go:build e2e && linux

package units

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// An operator may execute on an unmanaged unit the verbs that it allows, and no others.
func TestUnmanagedUnitsAllowVerbs(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.write("hsu.yaml", `units:
  open:
    kind: unmanaged
    discover: {pid_file: open.pid}
    allow: [signal, stop]
  shut:
    kind: unmanaged
    discover: {pid_file: shut.pid}
  service:
    kind: unmanaged
    discover: {systemd: no-such-unit-of-a-test.service}
    allow: [restart]
`)
	allowed, denied := s.StartDecoy(0), s.StartDecoy(0)
	s.write("open.pid", strconv.Itoa(allowed.PID))
	s.write("shut.pid", strconv.Itoa(denied.PID))
	m := s.start()
	s.await("open-0", "is found", func(w harness.Worker) bool { return w.PID == allowed.PID })
	s.await("shut-0", "is found", func(w harness.Worker) bool { return w.PID == denied.PID })

	if r := s.CLI("worker", "signal", "HUP", "open"); r.Code != 0 || r.Stdout != "open-0: got SIGHUP\n" {
		t.Errorf("an allowed signal: %+v", r)
	}
	harness.WaitFor(t, "the process has got the signal", func() error {
		if got, _ := os.ReadFile(filepath.Join(allowed.Record, "signals")); len(got) == 0 {
			return errors.New("it has got none")
		}
		return nil
	})
	for _, args := range [][]string{
		{"signal", "HUP", "shut"},
		{"stop", "shut-0"},
		{"restart", "open"},
		{"start", "open"},
		{"signal", "TERM", "open", "shut"}, // refused as a whole
	} {
		r := s.CLI(append([]string{"worker"}, args...)...)
		if r.Code != 1 || !strings.Contains(r.Stderr, "is unmanaged") {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if r := s.CLI("worker", "restart", "service"); r.Code != 1 || !strings.Contains(r.Stdout, "service-0: failed: ") {
		t.Errorf("a restart of no unit of systemd: %+v", r)
	}
	if err := denied.Untouched(); err != nil {
		t.Error(err)
	}

	// Another process takes the place of the first, and is stopped.
	sleep := exec.Command("sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = sleep.Wait() }()
	t.Cleanup(func() { _ = sleep.Process.Kill(); <-ended })
	s.write("open.pid", strconv.Itoa(sleep.Process.Pid))
	s.await("open-0", "is the other one", func(w harness.Worker) bool { return w.PID == sleep.Process.Pid })
	if r := s.CLI("worker", "stop", "open-0"); r.Code != 0 || r.Stdout != "open-0: stopped\n" {
		t.Errorf("an allowed stop: %+v", r)
	}
	<-ended
	s.await("open-0", "is absent", func(w harness.Worker) bool { return w.Status == "absent" })
	m.Stop()
}

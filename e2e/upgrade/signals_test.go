//go:build e2e && linux

package upgrade

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// runAs is a script that executes the real program with more in its environment, except for the check.
func runAs(more string) string {
	return fmt.Sprintf("case $1 in upgrade-check) exec \"$real\" \"$@\" ;; esac\n%s exec \"$real\" \"$@\"", more)
}

// wantStarts expects that as many programs have become a master.
func wantStarts(m *harness.Master, want int) {
	m.Host.T.Helper()
	if n := strings.Count(m.Log(), `"msg":"master started"`); n != want {
		m.Host.T.Errorf("%d programs were started, want %d", n, want)
	}
}

// A signal that arrives before the new program has come to its main function is followed.
func TestSignalDuringTheFirstInstructions(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			t.Parallel()
			h := newHost(t, harness.Workers(2)...)
			m := h.Start()
			want := h.AwaitRunning(2).Instances()
			// The program opens the trace when its packages are initialised, and waits there for a reader.
			trace := filepath.Join(h.Dir, "fifo")
			if err := unix.Mkfifo(trace, 0o600); err != nil {
				t.Fatal(err)
			}
			installScript(h, runAs("HSU_CRASH_TRACE='"+trace+"'"))
			m.Signal(syscall.SIGUSR2)
			harness.WaitFor(t, "the new program waits", func() error { return waitsIn(m.PID, unix.SYS_OPENAT) })
			m.Signal(sig)
			reader, err := os.OpenFile(trace, os.O_RDONLY|unix.O_NONBLOCK, 0) // even if no writer is left
			if err != nil {
				t.Fatal(err)
			}
			m.WantExit(0)
			if err := reader.Close(); err != nil {
				t.Error(err)
			}
			wantStarts(m, 2)
			if sig == syscall.SIGUSR1 {
				h.InstallMaster(harness.MasterOf(t, harness.NewVersion))
				m = h.Start()
				h.AwaitRunning(2).WantInstances(t, want)
				m.Stop()
			}
			h.WantNothingLeft()
		})
	}
}

// waitsIn returns nil if a thread of the process waits in the system call.
func waitsIn(pid, call int) error {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	if err != nil {
		return err
	}
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err == nil && strings.HasPrefix(string(text), fmt.Sprint(call, " ")) {
			return nil
		}
	}
	return errors.New("no thread waits")
}

// Signals that do not mean the end of a master do not kill a script that executes the new program.
func TestSignalsDoNotKillAScript(t *testing.T) {
	t.Parallel()
	h := newHost(t, harness.Workers(2)...)
	m := h.Start()
	want := h.AwaitRunning(2).Instances()
	executed, goOn := filepath.Join(h.Dir, "executed"), filepath.Join(h.Dir, "go-on")
	installScript(h, runAs(fmt.Sprintf(": >'%s'; while [ ! -e '%s' ]; do sleep 0.01; done;", executed, goOn)))
	m.Signal(syscall.SIGUSR2)
	harness.WaitFor(t, "the new program is executed", func() error {
		_, err := os.Stat(executed)
		return err
	})
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGUSR2} {
		m.Signal(s)
	}
	if err := os.WriteFile(goOn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "the new master serves", func() error { return logged(m, "master upgraded") })
	h.AwaitRunning(2).WantInstances(t, want)
	m.Stop()
	wantStarts(m, 2)
	h.WantNothingLeft()
}

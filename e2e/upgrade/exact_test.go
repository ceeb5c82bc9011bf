//go:build e2e && linux

package upgrade

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// hangAt makes masters that have the folder as HSU_FAULT_DIR hang at a point until the returned function is called.
func hangAt(t *testing.T, faults string, point crashpoint.Point) (goOn func()) {
	t.Helper()
	path := filepath.Join(faults, string(point))
	if err := os.WriteFile(path, []byte("hang"), 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// The file that was checked is executed: a file that is replaced by another one after its check does not run, and one
// whose content has changed is not executed.
func TestCheckedFileIsExecuted(t *testing.T) {
	t.Parallel()
	const broken = "#!/bin/sh\nexit 7\n"
	rename := func(h *harness.Host) error {
		path := filepath.Join(h.Dir, "broken")
		if err := os.WriteFile(path, []byte(broken), 0o700); err != nil {
			return err
		}
		return os.Rename(path, h.Program)
	}
	for name, test := range map[string]struct {
		script  string // in place of a program
		change  func(*harness.Host) error
		message string // of the failure; empty means that the checked program serves
	}{
		"a program is replaced": {change: rename},
		"a program is removed":  {change: func(h *harness.Host) error { return os.Remove(h.Program) }},
		"a program is overwritten": {
			change: func(h *harness.Host) error {
				return os.WriteFile(h.Program, []byte(broken), 0o700)
			},
			message: "has changed since its check",
		},
		"a script is replaced": {`exec "$real" "$@"`, rename, "has changed since its check"},
		"a script is overwritten": {
			`exec "$real" "$@"`,
			func(h *harness.Host) error { return os.WriteFile(h.Program, []byte(broken), 0o700) },
			"has changed since its check",
		},
		"a script stays": {script: `exec "$real" "$@"`, change: func(*harness.Host) error { return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, harness.Workers(2)...)
			faults := t.TempDir()
			m := h.Launch(h.Program, []string{"HSU_FAULT_DIR=" + faults})
			m.AwaitServing()
			want := h.AwaitRunning(2).Instances()
			calls := h.StartCallers(8, harness.Once)
			calls.AwaitMore(10)
			goOn := hangAt(t, faults, crashpoint.UpgradeExec)
			if test.script != "" {
				installScript(h, test.script)
			} else {
				h.InstallMaster(harness.MasterOf(t, harness.NewVersion))
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				if test.message != "" {
					wantRefused(h, test.message)
				} else if o := upgrade(h); o.To != harness.NewVersion {
					t.Errorf("%+v", o)
				}
			}()
			harness.WaitFor(t, "the check is passed", func() error { return logged(m, "master upgrading") })
			if err := test.change(h); err != nil {
				t.Error(err)
			}
			goOn()
			<-done
			calls.AwaitMore(10)
			calls.Stop()
			calls.WantNoFailures()
			d := h.AwaitRunning(2)
			d.WantInstances(t, want)
			if d.MasterPID != m.PID {
				t.Errorf("the master's PID is %d, want %d", d.MasterPID, m.PID)
			}
			comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", m.PID))
			if !strings.HasPrefix(string(comm), "hsu-master") {
				t.Errorf("the name of the process is %q, %v", comm, err)
			}
			m.Stop()
			h.WantNothingLeft()
		})
	}
}

// A new program that hangs, or panics, before it serves is replaced by the former one, with its own environment.
func TestFailingProgramIsReplaced(t *testing.T) {
	t.Parallel()
	for fault, message := range map[string]string{
		"hang":  "it did not serve within 3s",
		"panic": "it panicked before it served: injected at lock",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, harness.Workers(2)...)
			m := h.Start()
			want := h.AwaitRunning(2).Instances()
			calls := h.StartCallers(16, harness.Once)
			calls.AwaitMore(10)
			faults := t.TempDir()
			if err := os.WriteFile(filepath.Join(faults, string(crashpoint.Lock)), []byte(fault), 0o600); err != nil {
				t.Fatal(err)
			}
			installScript(h, runAs("HSU_SERVE_WITHIN=3s HSU_FAULT_DIR='"+faults+"'"))
			wantRefused(h, message)
			calls.AwaitMore(10)
			calls.Stop()
			calls.WantNoFailures()
			h.AwaitRunning(2).WantInstances(t, want)
			h.InstallMaster(harness.MasterOf(t, harness.NewVersion))
			upgrade(h)
			wantVersion(h, harness.NewVersion)
			m.Stop()
			h.WantNothingLeft()
		})
	}
}

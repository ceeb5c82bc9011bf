package master

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// A master that is killed leaves the command of a check running. Its environment must tell the next master to
// stop it, and not to take it for the worker.
func TestMasterStopsTheCommandOfACheckThatACrashHasLeft(t *testing.T) {
	program, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	environment := filepath.Join(t.TempDir(), "environment")
	o := options(t)
	o.Units = []unit.Spec{{
		Name: "sleeper", Path: program, Args: []string{"1000"}, Replicas: 1, Port: unit.NoPort,
		Health: unit.Health{Readiness: probe.Spec{Type: probe.TypeExec, Command: []string{
			"/bin/sh", "-c", "tr '\\0' '\\n' </proc/$$/environ >" + environment,
		}}},
	}}
	first := runUntilReady(t, o, supervisor.ErrDetach, nil)
	lines, err := os.ReadFile(environment)
	if err != nil {
		t.Fatal(err)
	}
	env := strings.Split(strings.TrimSpace(string(lines)), "\n")
	if !slices.Contains(env, "HSU_WORKER_ID=sleeper-0/probe") {
		t.Errorf("the environment of the command is %q, want an id of its own in it", env)
	}
	left, err := process.Start(process.Spec{Path: program, Args: []string{"1000"}, Env: env})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = left.Signal(syscall.SIGKILL); _ = left.Close() }()
	second := runUntilReady(t, o, nil, left.Done())
	if first != second {
		t.Errorf("the worker is process %d, then %d, want it adopted", first, second)
	}
}

// runUntilReady runs a master until its worker is ready and also is closed, and returns the PID of the worker.
func runUntilReady(t *testing.T, o Options, cause error, also <-chan struct{}) (pid int) {
	t.Helper()
	m := mustNew(t, o)
	ctx, end := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	changed, unwatch := m.sup.Services().Watch()
	defer unwatch()
	for {
		if list := m.sup.Workers(); len(list) == 1 && list[0].Ready {
			pid = list[0].Instance.PID
			break
		}
		<-changed
	}
	if also != nil {
		select {
		case <-also:
		case <-time.After(time.Minute):
			t.Error("the command lives")
		}
	}
	end(cause)
	if err := errors.Join(<-ended, m.Close()); err != nil {
		t.Fatal(err)
	}
	return pid
}

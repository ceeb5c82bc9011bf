package master

import (
	"context"
	"errors"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Workers of any program survive their master.
func TestMasterAdoptsAProgramWithoutPort(t *testing.T) {
	program, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	o := options(t)
	o.Units = []unit.Spec{{
		Name: "sleeper", Path: program, Args: []string{"1000"}, Replicas: 1,
		Port: unit.NoPort, Start: unit.Start{Settle: time.Millisecond},
	}}
	pids := map[int]bool{}
	for _, cause := range []error{supervisor.ErrDetach, supervisor.ErrDetach, nil} {
		m := mustNew(t, o)
		ctx, end := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		changed, unwatch := m.sup.Services().Watch()
		for ready := false; !ready; {
			for _, w := range m.sup.Workers() {
				if ready = w.Ready; ready {
					pids[w.Instance.PID] = true
				}
			}
			if !ready {
				<-changed
			}
		}
		unwatch()
		end(cause)
		if err := errors.Join(<-ended, m.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if len(pids) != 1 {
		t.Errorf("processes %v, want the same one under each master", pids)
	}
	for pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d is left: %v", pid, err)
		}
	}
}

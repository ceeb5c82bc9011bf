package worker

import (
	"path/filepath"
	"testing"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// A run is recorded from its plan until its processes are gone.
func TestRunsOfHooksAreRecordedUntilTheyAreGone(t *testing.T) {
	var r hookRuns
	want := func(when string, hooks ...unit.Hook) {
		t.Helper()
		got := r.recorded()
		ok := len(got) == len(hooks)
		for i := range hooks {
			ok = ok && got[i].Hook == string(hooks[i])
		}
		if !ok {
			t.Errorf("%s: recorded are %+v, want %q", when, got, hooks)
		}
	}
	want("at first")
	lease := identity.FileID{Device: 1, Inode: 2}
	for _, kind := range []unit.Hook{unit.AtStop, unit.AfterEnd} {
		r.plan(hookRun{HookRun: records.HookRun{
			Hook: string(kind), Instance: records.Instance{Token: "of " + string(kind), Lease: lease},
		}})
	}
	want("planned", unit.AtStop, unit.AfterEnd)
	if run := r.begin(unit.AtStop); run.Token != "of stop" || r.isPlanned(unit.AtStop) || !r.isPlanned(unit.AfterEnd) {
		t.Errorf("begun is %+v, want the planned one", run)
	}
	want("begun", unit.AfterEnd, unit.AtStop)
	r.drop()
	want("the others are dropped", unit.AtStop)
	r.gone(func(run records.HookRun) bool { return run.Token == "of stop" })
	want("ended")
	// Without a lease, the environment is all that tells of it.
	run := r.begin(unit.BeforeStart)
	if left := r.remaining(); len(left) != 1 || left[0].Token != run.Token || run.Token == "" {
		t.Errorf("left are %+v, want %+v", left, run)
	}
	want("without a lease")
	r.add(run.HookRun)
	if left := r.remaining(); len(left) != 1 {
		t.Errorf("left are %+v, want the run once", left)
	}
}

func TestDroppedRunsCloseTheirLeases(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lease")
	lease, err := process.CreateLease(path)
	if err != nil {
		t.Fatal(err)
	}
	var r hookRuns
	r.plan(hookRun{lease: lease})
	r.drop()
	if held, err := process.LeaseHeld(path, lease.ID()); held || err != nil {
		t.Errorf("the lease is held: %t, %v", held, err)
	}
}

package supervisor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/store/records"
)

// perform executes an act and returns the last report of each name.
func (m *master) perform(ctx context.Context, a Act) (map[string]Report, error) {
	last := map[string]Report{}
	err := m.Act(ctx, a, func(r Report) { last[r.Name] = r })
	return last, err
}

func TestStopOfADependencyIsRefusedUnlessItsUsersAreStoppedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.ignoresTerm = p.worker == "app-0" } // it takes the whole grace
		m := startUnits(t, world, openStore(t, world, t.TempDir()), dependent(t, "app", "db ready"), dependent(t, "db"))
		settle(time.Minute)
		_, err := m.perform(t.Context(), Act{Verb: VerbStop, Names: []string{"db"}})
		if _, ok := errors.AsType[*RefusedError](err); !ok || !strings.Contains(err.Error(), "stop app-0 too") {
			t.Errorf("stop of db: %v", err)
		}
		if got := m.ids(); got != "app-0 running, db-0 running" {
			t.Errorf("after the refusal: %s", got)
		}
		stopped := make(chan error, 1)
		go func() {
			_, err := m.perform(t.Context(), Act{Verb: VerbStop, All: true})
			stopped <- err
		}()
		settle(time.Second)
		if got := m.ids(); got != "app-0 stopping, db-0 running" {
			t.Errorf("during the stop of all: %s", got)
		}
		if err := <-stopped; err != nil {
			t.Errorf("stop of all: %v", err)
		}
		// The start of the dependent alone waits in vain, and says for what.
		last, err := m.perform(t.Context(), Act{Verb: VerbStart, Names: []string{"app"}})
		if r := last["app-0"]; !errors.Is(err, ErrAct) || r.Stage != StageFailed ||
			!strings.Contains(r.Reason, "db-0 is stopped") {
			t.Errorf("start of app: %v, %+v", err, r)
		}
		if _, err := m.perform(t.Context(), Act{Verb: VerbStart, All: true}); err != nil {
			t.Errorf("start of all: %v", err)
		}
		if got := m.ids(); got != "app-0 running, db-0 running" {
			t.Errorf("after the start: %s", got)
		}
		m.stop(nil)
	})
}

func TestActGoesOnWithoutItsCallerAndASecondOneJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.ignoresTerm = true } // it takes the whole grace
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Minute)
		ctx, cancel := context.WithTimeout(WithOperator(t.Context(), records.Operator{UID: 7}), time.Second)
		defer cancel()
		stop := Act{Verb: VerbStop, Names: []string{"worker-0"}}
		if _, err := m.perform(ctx, stop); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller without patience: %v", err)
		}
		if last, err := m.perform(t.Context(), stop); err != nil || last["worker-0"].Stage != StageDone {
			t.Errorf("a second caller: %v, %+v", err, last)
		}
		rec := m.recorded("worker-0")
		if rec.Status != records.StatusStopped || rec.StoppedBy == nil || rec.StoppedBy.UID != 7 {
			t.Errorf("recorded: %+v, want it stopped by the first", rec)
		}
		m.stop(nil)
	})
}

func TestContradictoryVerbsEndInTheLastOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.ignoresTerm = true }
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Minute)
		stopped := make(chan Report, 1)
		go func() {
			last, _ := m.perform(t.Context(), Act{Verb: VerbStop, All: true})
			stopped <- last["worker-0"]
		}()
		settle(time.Second)
		if last, err := m.perform(t.Context(), Act{Verb: VerbStart, All: true}); err != nil {
			t.Errorf("start: %v, %+v", err, last)
		}
		if r := <-stopped; r.Stage != StageFailed || r.Reason != "it was started meanwhile" {
			t.Errorf("the stop ends with %+v", r)
		}
		if got := m.ids(); got != "worker-0 running" {
			t.Errorf("workers are %s", got)
		}
		m.stop(nil)
	})
}

// An operator whose command waits for that of another is told whose it is.
func TestSecondOperatorSeesWhatTheFirstDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.ignoresTerm = true } // it takes the whole grace
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Minute)
		restart, ended := Act{Verb: VerbRestart, All: true}, make(chan error, 2)
		var told []string
		for i, tell := range []func(Report){func(Report) {}, func(r Report) { told = append(told, r.Reason) }} {
			by := records.Operator{UID: uint32(7 + i), Command: "worker restart --all"}
			go func() { ended <- m.Act(WithOperator(t.Context(), by), restart, tell) }()
			settle(time.Second)
		}
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		const want = "another change is under way by user 7: worker restart --all"
		if len(told) == 0 || told[0] != want {
			t.Errorf("the second was told %q, want %q first", told, want)
		}
		m.stop(nil)
	})
}

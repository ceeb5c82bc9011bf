package supervisor

import (
	"context"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/store/records"
)

// The events of an act that the next master completes after a crash name the operator of that act.
func TestOutcomesAfterACrashNameTheOperator(t *testing.T) {
	tests := map[string]struct {
		act   func(ctx context.Context, m *master) error
		types []string
	}{
		"restart": {func(ctx context.Context, m *master) error {
			_, err := m.Restart(ctx, RestartRequest{Workers: []string{"worker-0", "worker-1"}}, nil)
			return err
		}, []string{"restart", "stopping", "restart-resumed", "restart-completed"}},
		"stop": {func(ctx context.Context, m *master) error {
			return m.Act(ctx, Act{Verb: VerbStop, All: true, NoWait: true}, func(Report) {})
		}, []string{"stop", "stopping", "stopped"}},
		"disable": {func(ctx context.Context, m *master) error {
			return m.Act(ctx, Act{Verb: VerbDisable, Names: []string{"worker"}, NoWait: true}, func(Report) {})
		}, []string{"disable", "stopping", "removed"}},
		"scale": {func(ctx context.Context, m *master) error {
			_, err := m.Scale(ctx, "worker", 0)
			return err
		}, []string{"scale", "stopping", "removed"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world, dir := newFakeOS(t), t.TempDir()
				world.behave = func(p *fakeProcess) { p.ignoresTerm = true } // each stop takes the whole grace
				m := startMaster(t, world, dir, 2)
				settle(time.Second)
				by := records.Operator{UID: 7, Command: "hsu-master " + name}
				if err := test.act(WithOperator(t.Context(), by), m); err != nil {
					t.Fatal(err)
				}
				m.crash() // what has not begun yet is only recorded
				m = startMaster(t, world, dir, 2)
				settle(time.Minute)
				snap, err := m.store.Snapshot()
				if err != nil {
					t.Fatal(err)
				}
				seen := map[string]bool{}
				for _, e := range snap.Events {
					about := slices.Contains(test.types, e.Type)
					if e.Type == "stopping" && name == "disable" && e.Detail != "its unit was disabled" {
						t.Errorf("the end of %s is begun because %q", e.Worker, e.Detail)
					}
					if seen[e.Type] = seen[e.Type] || about; about && (e.Operator == nil || *e.Operator != by) {
						t.Errorf("%s %s (%s) has the operator %+v", e.Worker, e.Type, e.Detail, e.Operator)
					}
				}
				for _, kind := range test.types {
					if !seen[kind] {
						t.Errorf("there is no event %s", kind)
					}
				}
				m.stop(nil)
			})
		})
	}
}

// An operator who has stopped a worker is not named when it is forgotten by the command of nobody.
func TestForgottenByNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMaster(t, newFakeOS(t), t.TempDir(), 2)
		settle(time.Second)
		ctx := WithOperator(t.Context(), records.Operator{UID: 7, Command: "worker stop worker-1"})
		if err := m.Act(ctx, Act{Verb: VerbStop, Names: []string{"worker-1"}}, func(Report) {}); err != nil {
			t.Fatal(err)
		}
		if err := m.Apply(t.Context(), unitOf(t, "worker", 1)); err != nil {
			t.Fatal(err)
		}
		snap, err := m.store.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range snap.Events {
			if e.Type == "removed" && e.Operator != nil {
				t.Errorf("it is forgotten by %+v", e.Operator)
			}
		}
		m.stop(nil)
	})
}

// endsOf returns the commands of the operators that the events of the ends of workers name, by worker.
func endsOf(m *master) map[string][]string {
	snap, err := m.store.Snapshot()
	if err != nil {
		m.t.Fatal(err)
	}
	ends := map[string][]string{}
	for _, e := range snap.Events {
		if e.Type != "stopping" && e.Type != "removed" {
			continue
		}
		command := "-"
		if e.Operator != nil {
			command = e.Operator.Command
		}
		ends[e.Worker] = append(ends[e.Worker], command)
	}
	return ends
}

// The operator of an earlier change of a unit is not named when its file has lost it at the next start.
func TestUnitThatAStartRemovesIsRemovedByNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 2)
		settle(time.Second)
		ctx := WithOperator(t.Context(), records.Operator{UID: 7, Command: "scale"})
		if _, err := m.Scale(ctx, "worker", 1); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		m.crash()
		m = startUnits(t, world, openStore(t, world, dir), unitOf(t, "other", 1))
		settle(time.Minute)
		want := map[string][]string{"worker-0": {"-", "-"}, "worker-1": {"scale", "scale"}}
		if got := endsOf(m); !reflect.DeepEqual(got, want) {
			t.Errorf("the ends name %v, want %v", got, want)
		}
		m.stop(nil)
	})
}

// If two operators have made workers surplus, the end of each one names its own after a crash.
func TestEndsAfterACrashNameTheirOwnOperators(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = func(p *fakeProcess) { p.ignoresTerm = true } // each stop takes the whole grace
		m := startMaster(t, world, dir, 2)
		settle(time.Second)
		for n, command := range []string{"scale to 1", "scale to 0"} {
			ctx := WithOperator(t.Context(), records.Operator{UID: 7, Command: command})
			if _, err := m.Scale(ctx, "worker", 1-n); err != nil {
				t.Fatal(err)
			}
			settle(time.Millisecond)
		}
		m.crash() // while both are being stopped
		m = startMaster(t, world, dir, 2)
		settle(time.Minute)
		want := map[string][]string{
			"worker-0": {"scale to 0", "scale to 0"}, "worker-1": {"scale to 1", "scale to 1"},
		}
		if got := endsOf(m); !reflect.DeepEqual(got, want) {
			t.Errorf("the ends name %v, want %v", got, want)
		}
		m.stop(nil)
	})
}

// Each stop of a restart names the operator of the restart, and so does the end of the spare worker, which is begun
// when the restart is over.
func TestEndsOfARestartNameItsOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 2, startFirst)
		settle(time.Second)
		ctx := WithOperator(t.Context(), records.Operator{UID: 7, Command: "restart"})
		if _, err := m.restarted(ctx, RestartRequest{Workers: []string{"worker-0", "worker-1"}}); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		want := map[string][]string{
			"worker-0": {"restart"}, "worker-1": {"restart"}, "worker-2": {"restart", "restart"},
		}
		if got := endsOf(m); !reflect.DeepEqual(got, want) {
			t.Errorf("the ends name %v, want %v", got, want)
		}
		m.stop(nil)
	})
}

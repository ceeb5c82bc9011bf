package supervisor

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/cgroup"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

const unlimited = "no cgroups here"

// withoutCgroups makes no limit of any process enforced.
func withoutCgroups(world *fakeOS) {
	world.behave = func(p *fakeProcess) { p.unlimited = unlimited }
}

func limited(limits cgroup.Limits) func(*unit.Spec) { return func(u *unit.Spec) { u.Limits = limits } }

// The history has the limits that are not enforced once, and again when they change. The worker always shows it.
func TestUnenforcedLimitsAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		withoutCgroups(world)
		both := limited(cgroup.Limits{Memory: 1 << 30, PIDs: 100})
		m := startMaster(t, world, dir, 1, both)
		const all, one = "limits.memory, limits.pids: " + unlimited, "limits.pids: " + unlimited
		want := func(when, unenforced string, told ...string) {
			t.Helper()
			if got := m.worker("worker-0").Unenforced; !slices.Equal(got, []string{unenforced}) {
				t.Errorf("%s: %q, want %q", when, got, unenforced)
			}
			if got := m.history("limits-unenforced"); !slices.Equal(got, told) {
				t.Errorf("%s the history is %q, want %q", when, got, told)
			}
		}
		settle(time.Second)
		want("after the start", all, all)
		world.of("worker-0").die(identity.Exit{Signal: 9, Source: identity.ExitWait})
		settle(10 * time.Second)
		want("after another start", all, all)
		changed := unitOf(t, "worker", 1)
		limited(cgroup.Limits{PIDs: 100})(&changed)
		if err := m.Apply(t.Context(), changed); err != nil {
			t.Fatal(err)
		}
		want("after a change", one, all, one)
		if err := m.Apply(t.Context(), changed); err != nil {
			t.Fatal(err)
		}
		want("after no change", one, all, one)
		m.crash()
		m = startMaster(t, world, dir, 1, limited(cgroup.Limits{PIDs: 100}))
		settle(time.Second)
		want("after a crash of the master", one, all, one)
		if n := world.starts("worker-0"); n != 2 {
			t.Errorf("started %d times, want 2: changed limits replace no process", n)
		}
		m.stop(nil)
	})
}

// A process gets its limits at its start, when they change, and from the next master.
func TestLimitsFollowTheUnit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		first, second, third := cgroup.Limits{PIDs: 1}, cgroup.Limits{PIDs: 2}, cgroup.Limits{PIDs: 3}
		m := startMaster(t, world, dir, 1, limited(first))
		settle(time.Second)
		changed := unitOf(t, "worker", 1)
		changed.Limits = second
		if err := m.Apply(t.Context(), changed); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		m.crash()
		m = startMaster(t, world, dir, 1, limited(third))
		settle(time.Second)
		p := world.of("worker-0")
		if got, want := p.limits, []cgroup.Limits{first, second, third}; !slices.Equal(got, want) {
			t.Errorf("the process was given %+v, want %+v", got, want)
		}
		m.stop(nil)
	})
}

// An exit that is no success tells that the kernel has killed processes because memory ran out.
func TestExitTellsOutOfMemory(t *testing.T) {
	const oom = "the kernel has killed a process of it"
	for name, test := range map[string]struct {
		exit identity.Exit
		want string
	}{
		"killed": {
			identity.Exit{Signal: 9, Source: identity.ExitWait}, "killed by SIGKILL: " + oom,
		},
		"its child was": {identity.Exit{Code: 137, Source: identity.ExitWait}, "exited with code 137: " + oom},
		"not known":     {identity.Exit{}, "exited with an unknown code: " + oom},
		"succeeded":     {identity.Exit{Source: identity.ExitWait}, "exited with code 0"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := newFakeOS(t)
				world.behave = func(p *fakeProcess) { p.oom = oom }
				m := startMaster(t, world, t.TempDir(), 1, func(u *unit.Spec) { u.Restart.Mode = unit.RestartNever })
				settle(time.Second)
				world.of("worker-0").die(test.exit)
				settle(time.Second)
				w := m.worker("worker-0")
				if told := m.history("exited"); !slices.Equal(told, []string{test.want}) {
					t.Errorf("the history is %q, want %q", told, test.want)
				}
				if w.Status == records.StatusFailed && !strings.Contains(w.Reason, test.want) || len(w.Unenforced) > 0 {
					t.Errorf("worker = %+v, want the reason %q", w, test.want)
				}
				m.stop(nil)
			})
		})
	}
}

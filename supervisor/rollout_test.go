package supervisor

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/supervisor/unit"
)

func atOnce(n int) func(*unit.Spec) { return func(u *unit.Spec) { u.MaxUnavailable = n } }

// A change replaces as many workers at once as the unit allows, and the next as soon as one of them is ready.
func TestApplyReplacesSomeWorkersAtOnce(t *testing.T) {
	for _, c := range []struct {
		limit int
		took  time.Duration // of five workers that need a second each
	}{{0, 5 * time.Second}, {1, 5 * time.Second}, {2, 3 * time.Second}, {3, 2 * time.Second}, {9, time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			world := newFakeOS(t)
			m := startMaster(t, world, t.TempDir(), 5)
			settle(time.Second)
			world.set(func() {
				world.acts = nil
				world.behave = func(p *fakeProcess) { p.readyAfter = time.Since(world.birth) + time.Second }
			})
			changed := unitOf(t, "worker", 5, "--new")
			atOnce(c.limit)(&changed)
			began := time.Now()
			if err := m.Apply(t.Context(), changed); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began).Round(100 * time.Millisecond); took != c.took {
				t.Errorf("%d at once took %s, want %s", c.limit, took, c.took)
			}
			out, most := 0, 0
			for _, act := range world.did() {
				switch what, _, _ := strings.Cut(act, " "); what {
				case "terminate":
					out++
				case "start":
					out--
				}
				most = max(most, out)
			}
			if most > max(c.limit, 1) {
				t.Errorf("%d workers were stopped at the same time, want %d at most: %q", most, c.limit, world.did())
			}
			for _, w := range m.Workers() {
				if !w.Ready || w.Outdated || w.Incarnation != 2 {
					t.Errorf("%s = %+v, want it replaced", w.ID, w)
				}
			}
			m.stop(nil)
		})
	}
}

// The first failure ends the change. Workers whose replacement has begun are awaited.
func TestApplyAwaitsTheWorkersUnderWayAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 5)
		settle(time.Second)
		world.set(func() {
			world.behave = func(p *fakeProcess) {
				p.readyAfter = time.Since(world.birth) + 3*time.Second
				if p.worker == "worker-1" {
					p.exitsAfter, p.exitCode, p.readyAfter = time.Second, 3, -1
				}
			}
		})
		changed := unitOf(t, "worker", 5, "--bad")
		atOnce(2)(&changed)
		err := m.Apply(t.Context(), changed)
		if err == nil || err.Error() != "replaced 1 of 5 workers: worker-1 is not ready: exited with code 3" {
			t.Errorf("Apply = %v, want how far it came and why", err)
		}
		if w := m.worker("worker-0"); !w.Ready || w.Incarnation != 2 {
			t.Errorf("%+v, want it replaced and ready", w)
		}
		for _, id := range []string{"worker-2", "worker-3", "worker-4"} {
			if w := m.worker(id); !w.Ready || !w.Outdated || w.Incarnation != 1 {
				t.Errorf("%s = %+v, want it untouched and outdated", id, w)
			}
		}
		m.stop(nil)
	})
}

func TestAtMost(t *testing.T) {
	bad := errors.New("bad")
	for _, c := range []struct {
		limit    int
		failing  []int
		done     int
		begun    []int
		failures int
	}{
		{1, nil, 5, []int{0, 1, 2, 3, 4}, 0},
		{0, []int{1}, 1, []int{0, 1}, 1},
		{2, []int{0, 1}, 0, []int{0, 1}, 2},
		{2, []int{4}, 4, []int{0, 1, 2, 3, 4}, 1},
		{9, []int{0}, 4, []int{0, 1, 2, 3, 4}, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var begun []int
			done, err := atMost(c.limit, []int{0, 1, 2, 3, 4}, func(i int) error {
				time.Sleep(time.Duration(i) * time.Millisecond) // so that they begin in order
				mu.Lock()
				begun = append(begun, i)
				mu.Unlock()
				time.Sleep(time.Second)
				if slices.Contains(c.failing, i) {
					return bad
				}
				return nil
			})
			slices.Sort(begun)
			failures := 0
			if err != nil {
				failures = strings.Count(err.Error(), "bad")
			}
			if done != c.done || !slices.Equal(begun, c.begun) || failures != c.failures {
				t.Errorf("%d at once, %v fail: %d done, %v begun, %v", c.limit, c.failing, done, begun, err)
			}
		})
	}
}

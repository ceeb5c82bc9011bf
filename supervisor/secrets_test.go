package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

func withEnv(entries ...string) func(*unit.Spec) {
	return func(u *unit.Spec) { u.Env = entries }
}

// The workers of a state whose key is lost are marked, and nothing else happens to them until they are started again.
func TestLostKeyMarksWorkersAndReplacesNone(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, dir string){
		"removed": func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "secret.key")); err != nil {
				t.Fatal(err)
			}
		},
		"cut": func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "secret.key"), 31); err != nil {
				t.Fatal(err)
			}
		},
		"recorded by an earlier version": func(t *testing.T, dir string) {
			rewrite(t, dir, func(w *records.Worker) {
				w.SpecHash, w.SecretKey, w.EnvironmentMAC = "of the values too", "", ""
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world, dir := newFakeOS(t), t.TempDir()
				secret := withEnv("TOKEN=first")
				m := startMaster(t, world, dir, 2, secret)
				settle(time.Second)
				m.crash()
				lose(t, dir)

				m = startMaster(t, world, dir, 2, secret)
				<-m.Recovered()
				settle(time.Second)
				same := unitOf(t, "worker", 2)
				secret(&same)
				changes, err := m.Changes(t.Context(), same)
				if err != nil || len(changes) != 0 {
					t.Errorf("a reload of the same units would make the changes %v, %v", changes, err)
				}
				if err := m.Apply(t.Context(), same); err != nil {
					t.Fatal(err)
				}
				for _, w := range m.Workers() {
					if !w.Adopted || !w.Outdated || w.Incarnation != 1 {
						t.Errorf("%s = %+v, want its process kept and outdated", w.ID, w)
					}
				}
				world.of("worker-0").die(identity.Exit{Code: 1, Source: identity.ExitWait})
				settle(time.Second)
				if w := m.worker("worker-0"); w.Outdated || w.Incarnation != 2 {
					t.Errorf("%+v, want it up to date after its restart", w)
				}
				m.crash()
				m = startMaster(t, world, dir, 2, secret)
				<-m.Recovered()
				settle(time.Second)
				if w := m.worker("worker-0"); w.Outdated {
					t.Errorf("%+v, want it up to date under the next master", w)
				}

				// A reload that changes the environment replaces all the same, also after one that could not.
				world.set(func() {
					world.behave = func(p *fakeProcess) { p.exitsAfter, p.readyAfter = time.Second, -1 }
				})
				changed := unitOf(t, "worker", 2)
				withEnv("TOKEN=second")(&changed)
				if err := m.Apply(t.Context(), changed); err == nil {
					t.Error("Apply succeeds with a worker that ends")
				}
				world.set(func() { world.behave = nil })
				if err := m.Apply(t.Context(), changed); err != nil {
					t.Fatal(err)
				}
				if w := m.worker("worker-1"); w.Outdated || w.Incarnation != 2 {
					t.Errorf("%+v, want it replaced with the new environment", w)
				}
				m.stop(nil)
			})
		})
	}
}

// With the key, a value that changes while no master runs is noticed.
func TestChangedValueMakesWorkersOutdated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1, withEnv("TOKEN=first", "LEVEL=info"))
		settle(time.Second)
		m.crash()
		m = startMaster(t, world, dir, 1, withEnv("TOKEN=second", "LEVEL=info"))
		<-m.Recovered()
		settle(time.Second)
		if w := m.worker("worker-0"); !w.Outdated || w.Incarnation != 1 {
			t.Errorf("%+v, want it outdated", w)
		}
		changed := unitOf(t, "worker", 1)
		withEnv("TOKEN=second", "LEVEL=info")(&changed)
		if err := m.Apply(t.Context(), changed); err != nil {
			t.Fatal(err)
		}
		if w := m.worker("worker-0"); w.Outdated || w.Incarnation != 2 {
			t.Errorf("%+v, want it replaced", w)
		}
		m.stop(nil)
	})
}

// A failed worker stays failed if its environment cannot be compared: it may be the one that it has failed with.
func TestLostKeyRevivesNoFailedWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = func(p *fakeProcess) { p.exitsAfter, p.exitCode = time.Millisecond, 3 }
		once := func(u *unit.Spec) { u.Env, u.Restart.Mode = []string{"TOKEN=first"}, unit.RestartNever }
		m := startMaster(t, world, dir, 1, once)
		settle(time.Second)
		m.crash()
		if err := os.Remove(filepath.Join(dir, "secret.key")); err != nil {
			t.Fatal(err)
		}
		m = startMaster(t, world, dir, 1, once)
		<-m.Recovered()
		settle(time.Second)
		if w := m.worker("worker-0"); w.Status != records.StatusFailed || w.Incarnation != 1 {
			t.Errorf("%+v, want it failed and not started again", w)
		}
		m.stop(nil)
	})
}

// Whatever the command of a check writes, the reason shows no value of the environment.
func TestReasonsShowNoValueOfTheEnvironment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1, func(u *unit.Spec) {
			u.Env = []string{"TOKEN={{s3cr3t}"}
			u.Health.Readiness = probe.Spec{Type: probe.TypeExec, Command: []string{"/check"}}
		})
		settle(time.Minute)
		world.answer(probe.TypeExec, errors.New("token {s3cr3t} is refused"))
		settle(15 * time.Second)
		w := m.worker("worker-0")
		got := w.Reason
		for _, c := range w.Checks {
			got += "; " + c.Answer
		}
		if strings.Contains(got, "s3cr3t") || !strings.Contains(got, "token $TOKEN is refused") {
			t.Errorf("the reason and the answers are %q, want the name of the variable in place of its value", got)
		}
		m.stop(nil)
	})
}

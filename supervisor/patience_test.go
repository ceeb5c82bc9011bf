package supervisor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// startStalled starts app, which depends on db, and then has db-0 stopped by a signal, which lasts.
func startStalled(t *testing.T, world *fakeOS) *master {
	t.Helper()
	m := startUnits(t, world, openStore(t, world, t.TempDir()), dependent(t, "db"), dependent(t, "app", "db ready"))
	settle(time.Minute)
	db := world.of("db-0")
	db.set(func() { db.suspended = true })
	settle(time.Minute)
	if w := m.worker("db-0"); w.Status != records.StatusUnhealthy {
		t.Fatalf("db-0 = %+v, want it unhealthy", w)
	}
	return m
}

// A replacement must not end a process whose successor could not start, nor keep later changes waiting for ever.
func TestApplyReplacesNoWorkerWhoseDependencyIsNotMet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startStalled(t, world)
		app := dependent(t, "app", "db ready")
		app.Args = []string{"--new"}
		changes, err := m.Changes(t.Context(), dependent(t, "db"), app)
		if err != nil || len(changes) != 1 ||
			!strings.HasPrefix(changes[0].Reasons[len(changes[0].Reasons)-1], "waits for db: db-0 is unhealthy") {
			t.Errorf("Changes = %+v, %v, want the dependency", changes, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		err = m.Apply(ctx, dependent(t, "db"), app)
		const want = "app-0 is not replaced, because it could not be started again: db: db-0 is unhealthy"
		took := time.Since(began)
		if err == nil || !strings.Contains(err.Error(), want) || took != defaults.Start.Timeout {
			t.Errorf("Apply = %v after %s, want the dependency after %s", err, took, defaults.Start.Timeout)
		}
		if w := m.worker("app-0"); world.of("app-0").isDead() || w.Status != records.StatusRunning || !w.Outdated {
			t.Errorf("app-0 = %+v, want it left running and outdated", w)
		}
		// A dependency that recovers within the time is waited for.
		db := world.of("db-0")
		time.AfterFunc(defaults.Start.Timeout/2, func() { db.set(func() { db.suspended = false }) })
		if err := m.Apply(ctx, dependent(t, "db"), app); err != nil || world.starts("app-0") != 2 {
			t.Errorf("Apply = %v, app-0 was started %d times, want it replaced", err, world.starts("app-0"))
		}
		// A dependency without workers never recovers by itself.
		none := dependent(t, "db")
		none.Replicas, app.Args = 0, []string{"--newer"}
		began = time.Now()
		if err := m.Apply(ctx, none, app); err == nil || time.Since(began) > time.Second {
			t.Errorf("Apply = %v after %s, want an error at once", err, time.Since(began))
		}
		// Without the dependency, nothing is waited for.
		app.DependsOn = nil
		if err := m.Apply(ctx, none, app); err != nil || world.starts("app-0") != 3 {
			t.Errorf("Apply = %v, app-0 was started %d times, want it replaced", err, world.starts("app-0"))
		}
		m.stop(nil)
	})
}

func TestNewWorkersWaitForAStalledDependencyForALimitedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startStalled(t, world)
		units := []unit.Spec{
			dependent(t, "db"), dependent(t, "app", "db ready"), dependent(t, "more", "db ready"),
			dependent(t, "last", "more ready"),
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		err := m.Apply(ctx, units...)
		if took := time.Since(began); err == nil || took != defaults.Start.Timeout ||
			!strings.HasPrefix(err.Error(), "more-0 is waiting: db: db-0 is unhealthy") {
			t.Errorf("Apply = %v after %s, want the dependency after %s", err, took, defaults.Start.Timeout)
		}
		// The caller of a scale learns the reason too, if its own time is shorter.
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s, err := m.Scale(short, "last", 2)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Wait(short); !errors.Is(err, context.DeadlineExceeded) ||
			!strings.HasPrefix(err.Error(), "last-1 is waiting: more: more-0 is waiting: db: db-0 is unhealthy") {
			t.Errorf("Wait = %v, want the dependency", err)
		}
		db := world.of("db-0")
		db.set(func() { db.suspended = false })
		settle(time.Minute)
		want := "db-0 running, app-0 running, more-0 running, last-0 running, last-1 running"
		if got := m.ids(); got != want {
			t.Errorf("workers are %s, want %s", got, want)
		}
		m.stop(nil)
	})
}

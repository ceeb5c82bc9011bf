package supervisor

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/phayes/freeport"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// portUnit returns a unit of one worker with a fixed port.
func portUnit(t *testing.T, name string, port int, args ...string) unit.Spec {
	u := unitOf(t, name, 1, args...)
	u.Port = unit.Port(port)
	return u
}

func freePort(t *testing.T) int {
	port, err := freeport.GetFreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// A unit that gets the fixed port of a unit that goes starts when the port is free, at no cost.
func TestApplyHandsAFixedPortOn(t *testing.T) {
	for name, after := range map[string]func(t *testing.T, port int) []unit.Spec{
		"renamed unit": func(t *testing.T, port int) []unit.Spec {
			return []unit.Spec{portUnit(t, "renamed", port), unitOf(t, "kept", 1)}
		},
		"unit that stays": func(t *testing.T, port int) []unit.Spec {
			return []unit.Spec{portUnit(t, "kept", port)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world, port := newFakeOS(t), freePort(t)
				m := startMaster(t, world, t.TempDir(), 0)
				settle(time.Second)
				if err := m.Apply(t.Context(), portUnit(t, "first", port), unitOf(t, "kept", 1)); err != nil {
					t.Fatal(err)
				}
				p := world.of("first-0")
				p.set(func() { p.ignoresTerm = true })
				units := after(t, port)
				if err := m.Apply(t.Context(), units...); err != nil {
					t.Errorf("Apply = %v, want it to wait for the port", err)
				}
				w := m.worker(units[0].WorkerID(0))
				if !p.isDead() || !w.Ready || w.Port != port || w.Restarts != 0 || world.starts(w.ID) > 2 {
					t.Errorf("worker = %+v after %d starts, want it ready on port %d", w, world.starts(w.ID), port)
				}
				m.stop(nil)
			})
		})
	}
}

// A master that stops while a worker waits for its port does not start it.
func TestStopWhileAWorkerWaitsForItsPort(t *testing.T) {
	for _, reason := range []error{nil, ErrDetach} {
		synctest.Test(t, func(t *testing.T) {
			world, port := newFakeOS(t), freePort(t)
			m := startMaster(t, world, t.TempDir(), 0)
			settle(time.Second)
			if err := m.Apply(t.Context(), portUnit(t, "first", port)); err != nil {
				t.Fatal(err)
			}
			p := world.of("first-0")
			p.set(func() { p.ignoresTerm = true })
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := m.Apply(ctx, portUnit(t, "second", port)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Apply = %v, want the end of its context", err)
			}
			m.stop(reason)
			if n := world.starts("second-0"); n != 0 {
				t.Errorf("it was started %d times", n)
			}
			p.die(identity.Exit{Source: identity.ExitWait})
		})
	}
}

// A unit that is put back while its worker is being stopped is started when that is done.
func TestApplyWaitsForAWorkerThatIsWantedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 2)
		settle(time.Second)
		first := world.of("worker-1")
		first.set(func() { first.ignoresTerm = true })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Apply(ctx, unitOf(t, "worker", 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Apply = %v, want the end of its context", err)
		}
		if err := m.Apply(t.Context(), unitOf(t, "worker", 2)); err != nil {
			t.Errorf("Apply = %v, want it to wait", err)
		}
		if w := m.worker("worker-1"); !first.isDead() || !w.Ready || w.Incarnation != 1 {
			t.Errorf("worker-1 = %+v, want a new one", w)
		}
		m.stop(nil)
	})
}

// The wait for a worker that cannot be stopped is bounded.
func TestApplyGivesUpWaitingForAWorkerThatIsWantedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		p := world.of("worker-0")
		p.set(func() { p.immortalUntil = time.Now().Add(10 * time.Minute) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Apply(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Apply = %v, want the end of its context", err)
		}
		began := time.Now()
		err := m.Apply(t.Context(), unitOf(t, "worker", 1))
		if err == nil || !strings.HasPrefix(err.Error(), "worker-0 is still being stopped") {
			t.Errorf("Apply = %v, want the worker that is still being stopped", err)
		}
		if took := time.Since(began); took != defaults.Stop.Grace+surplusMargin {
			t.Errorf("Apply took %s, want the grace and %s", took, surplusMargin)
		}
		settle(10 * time.Minute)
		if err := m.Apply(t.Context(), unitOf(t, "worker", 1)); err != nil {
			t.Errorf("Apply when it was stopped = %v", err)
		}
		m.stop(nil)
	})
}

// A surplus worker whose slot the scale of its unit leaves out is not waited for.
func TestApplyDoesNotWaitForAWorkerThatTheScaleLeavesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 2)
		settle(time.Second)
		p := world.of("worker-1")
		p.set(func() { p.immortalUntil = time.Now().Add(time.Hour) })
		if _, err := m.Scale(t.Context(), "worker", 1); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := m.Apply(ctx, unitOf(t, "worker", 2), unitOf(t, "new", 1))
		if !errors.Is(err, context.DeadlineExceeded) || m.worker("new-0").Status != records.StatusRunning {
			t.Errorf("Apply = %v, new-0 is %s, want it to start the new one", err, m.worker("new-0").Status)
		}
		settle(time.Hour)
		m.stop(nil)
	})
}

// A port of a worker that is gone is free for all others.
func TestPortOfARemovedWorkerIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, port := newFakeOS(t), freePort(t)
		m := startMaster(t, world, t.TempDir(), 0)
		settle(time.Second)
		for _, units := range [][]unit.Spec{{portUnit(t, "a", port)}, {}, {portUnit(t, "b", port)}} {
			if err := m.Apply(t.Context(), units...); err != nil {
				t.Fatal(err)
			}
		}
		if got := m.ids(); got != "b-0 running" || !slices.Contains(world.did(), "start b-0") {
			t.Errorf("workers are %s", got)
		}
		m.stop(nil)
	})
}

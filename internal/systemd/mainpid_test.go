package systemd

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/core-tools/hsu-master/internal/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m, os.Stderr)) }

// fakeBus is a service manager that knows one unit.
type fakeBus struct {
	pid    int
	pidErr error
	states [3]string
	hangs  chan struct{} // if it is set, no answer comes before it is closed
	closed int
}

func (b *fakeBus) MainPID(ctx context.Context, _ string) (int, error) {
	if b.hangs != nil {
		select {
		case <-b.hangs:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	return b.pid, b.pidErr
}

func (b *fakeBus) State(context.Context, string) (load, active, sub string, err error) {
	return b.states[0], b.states[1], b.states[2], nil
}

func (b *fakeBus) Close() { b.closed++ }

// managerOf returns a manager whose connections are these, one after the other.
func managerOf(buses ...*fakeBus) (m *Manager, dials *int) {
	dials = new(int)
	return newManager(func(context.Context) (unitBus, error) {
		if *dials == len(buses) {
			return nil, errors.New("connection refused")
		}
		*dials++
		return buses[*dials-1], nil
	}), dials
}

func TestMainPID(t *testing.T) {
	unknown := dbus.Error{Name: "org.freedesktop.DBus.Error.UnknownInterface"}
	for name, tt := range map[string]struct {
		bus    fakeBus
		reason string
	}{
		"running": {fakeBus{pid: 12}, ""},
		"stopped": {
			fakeBus{states: [3]string{"loaded", "inactive", "dead"}},
			"a.service is inactive (dead) and has no main process",
		},
		"one shot":  {fakeBus{states: [3]string{"loaded", "active", "exited"}}, "a.service is active (exited)"},
		"not there": {fakeBus{states: [3]string{"not-found", "inactive", "dead"}}, "systemd has no unit a.service"},
		"masked":    {fakeBus{states: [3]string{"masked", "inactive", "dead"}}, "a.service is masked"},
		"a target": {
			fakeBus{pidErr: unknown, states: [3]string{"loaded", "active", "active"}}, "a.service is active (active)",
		},
	} {
		m, _ := managerOf(&tt.bus)
		pid, err := m.MainPID(t.Context(), "a.service")
		m.Close()
		switch {
		case tt.reason == "" && (err != nil || pid != 12):
			t.Errorf("%s: process %d, %v", name, pid, err)
		case tt.reason != "" &&
			(err == nil || !strings.HasPrefix(err.Error(), tt.reason) || errors.Is(err, ErrNoAnswer)):
			t.Errorf("%s: %v, want %q", name, err, tt.reason)
		}
		if tt.bus.closed != 1 {
			t.Errorf("%s: the connection was closed %d times", name, tt.bus.closed)
		}
	}
}

// One connection serves all questions. A lost one is made again, once for each question.
func TestConnectionIsMadeAgain(t *testing.T) {
	first, second := &fakeBus{pid: 1}, &fakeBus{pid: 2}
	m, dials := managerOf(first, second)
	defer m.Close()
	for range 3 {
		if pid, err := m.MainPID(t.Context(), "a.service"); pid != 1 || err != nil || *dials != 1 {
			t.Fatalf("process %d, %v, %d connections", pid, err, *dials)
		}
	}
	first.pidErr = dbus.ErrClosed // executed again
	if pid, err := m.MainPID(t.Context(), "a.service"); pid != 2 || err != nil || first.closed != 1 {
		t.Errorf("process %d, %v; the first connection was closed %d times", pid, err, first.closed)
	}
	second.pidErr = dbus.Error{Name: "org.freedesktop.DBus.Error.NoReply"}
	if _, err := m.MainPID(t.Context(), "a.service"); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("without a manager: %v", err)
	}
}

// A manager that hangs takes half a second from the first caller, and nothing from the others.
func TestManagerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := &fakeBus{pid: 12, hangs: make(chan struct{})}
		m, dials := managerOf(bus, &fakeBus{pid: 13})
		defer m.Close()
		ask := func(want time.Duration) {
			t.Helper()
			began := time.Now()
			_, err := m.MainPID(t.Context(), "a.service")
			if took := time.Since(began); !errors.Is(err, ErrNoAnswer) || took != want {
				t.Errorf("%v after %v, want %v", err, took, want)
			}
		}
		ask(patience)
		ask(0)
		ask(0)
		close(bus.hangs)
		synctest.Wait()
		if pid, err := m.MainPID(t.Context(), "a.service"); pid != 12 || err != nil {
			t.Errorf("after its answer: process %d, %v", pid, err)
		}
		bus.hangs = make(chan struct{})
		ask(patience)
		time.Sleep(limit)
		synctest.Wait()
		if pid, err := m.MainPID(t.Context(), "a.service"); pid != 13 || err != nil || *dials != 2 {
			t.Errorf("over a new connection: process %d, %v", pid, err)
		}
	})
}

func TestCloseEndsAQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := managerOf(&fakeBus{hangs: make(chan struct{})})
		go func() {
			time.Sleep(patience / 2)
			m.Close()
		}()
		if _, err := m.MainPID(t.Context(), "a.service"); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("%v", err)
		}
		synctest.Wait()
		if _, err := m.MainPID(t.Context(), "a.service"); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("after the end: %v", err)
		}
	})
}

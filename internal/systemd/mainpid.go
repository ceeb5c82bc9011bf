package systemd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"
)

// ErrNoAnswer is returned if the service manager cannot be asked: there is none, it does not answer in time, or it is
// just being executed again.
var ErrNoAnswer = errors.New("systemd cannot be asked")

// Times of a question.
const (
	// patience is how long a caller waits. A running manager answers within some milliseconds.
	patience = 500 * time.Millisecond
	// limit is how long a question may take. Until it has an answer, or is over, all callers get ErrNoAnswer at once.
	limit = 20 * time.Second
)

// Manager asks the system's service manager over one connection, which it makes when it is needed, and again after it
// was lost. No question blocks its caller for longer than half a second. It is safe for concurrent use.
type Manager struct {
	ctx    context.Context // of the connection
	cancel context.CancelFunc
	dial   func(context.Context) (unitBus, error)
	turn   chan struct{} // one token, of the question that is being asked; it protects bus
	late   atomic.Bool   // that question has taken longer than its caller waited
	bus    unitBus       // nil if there is no connection
}

// unitBus is the part of a [Bus] that a manager uses.
type unitBus interface {
	MainPID(ctx context.Context, unit string) (int, error)
	State(ctx context.Context, unit string) (load, active, sub string, err error)
	Close()
}

// NewManager returns a manager without a connection.
func NewManager() *Manager {
	return newManager(func(ctx context.Context) (unitBus, error) {
		bus, err := Dial(ctx)
		if err != nil {
			return nil, err // not a bus that is nil
		}
		return bus, nil
	})
}

func newManager(dial func(context.Context) (unitBus, error)) *Manager {
	ctx, cancel := context.WithCancel(context.Background())
	return &Manager{ctx: ctx, cancel: cancel, dial: dial, turn: make(chan struct{}, 1)}
}

// Close ends the connection and a question that is being asked. Nothing can be asked any more.
func (m *Manager) Close() {
	m.cancel()
	m.turn <- struct{}{}
	m.hangUp()
	<-m.turn
}

// MainPID returns the main process of a unit. If it has none, the error is the reason; it wraps [ErrNoAnswer] if that
// cannot be known.
func (m *Manager) MainPID(ctx context.Context, unit string) (int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("no answer in time"))
	defer cancel()
	if m.late.Load() {
		return 0, fmt.Errorf("%w: it has not answered an earlier question yet", ErrNoAnswer)
	}
	select {
	case m.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", ErrNoAnswer, context.Cause(ctx))
	}
	type answer struct {
		pid int
		err error
	}
	answers := make(chan answer, 1)
	go func() { // it ends after limit, or when the manager is closed
		asking, cancel := context.WithTimeout(m.ctx, limit)
		defer cancel()
		pid, err := m.ask(asking, unit)
		answers <- answer{pid, err}
		m.late.Store(false)
		<-m.turn
	}()
	select {
	case a := <-answers:
		return a.pid, a.err
	case <-ctx.Done():
	}
	m.late.Store(true)
	select {
	case a := <-answers: // just now
		m.late.Store(false)
		return a.pid, a.err
	default:
		return 0, fmt.Errorf("%w: %w", ErrNoAnswer, context.Cause(ctx))
	}
}

// ask asks once more over a new connection if the old one was lost.
func (m *Manager) ask(ctx context.Context, unit string) (int, error) {
	for fresh := false; ; {
		if m.bus == nil {
			fresh = true
			if err := m.connect(ctx); err != nil {
				return 0, fmt.Errorf("%w: %w", ErrNoAnswer, err)
			}
		}
		pid, err := mainPID(ctx, m.bus, unit)
		if !errors.Is(err, ErrNoAnswer) {
			return pid, err
		}
		m.hangUp()
		if fresh || ctx.Err() != nil {
			return 0, err
		}
	}
}

// connect makes the connection, whose context is that of the manager: one that ends would end the connection too.
func (m *Manager) connect(ctx context.Context) (err error) {
	lasting, cancel := context.WithCancel(m.ctx)
	stop := context.AfterFunc(ctx, cancel)
	m.bus, err = m.dial(lasting)
	if !stop() && err == nil {
		m.hangUp()
		err = context.Cause(ctx)
	}
	if err != nil {
		cancel()
	}
	return err
}

func (m *Manager) hangUp() {
	if m.bus != nil {
		m.bus.Close()
		m.bus = nil
	}
}

// mainPID returns the main process of a unit, or the reason why there is none.
func mainPID(ctx context.Context, bus unitBus, unit string) (int, error) {
	pid, err := bus.MainPID(ctx, unit)
	if err == nil && pid > 0 {
		return pid, nil
	}
	if err != nil && !isReply(err) {
		return 0, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	load, active, sub, stateErr := bus.State(ctx, unit)
	switch {
	case stateErr != nil && !isReply(stateErr):
		return 0, fmt.Errorf("%w: %w", ErrNoAnswer, stateErr)
	case stateErr != nil:
		return 0, fmt.Errorf("systemd knows no unit %s: %w", unit, stateErr)
	case load == "not-found":
		return 0, fmt.Errorf("systemd has no unit %s", unit)
	case load != "loaded":
		return 0, fmt.Errorf("%s is %s", unit, load)
	}
	return 0, fmt.Errorf("%s is %s (%s) and has no main process", unit, active, sub)
}

// isReply reports whether the manager itself has answered with an error, which is not that it is about to end.
func isReply(err error) bool {
	var reply dbus.Error
	if !errors.As(err, &reply) {
		return false
	}
	switch name, _ := strings.CutPrefix(reply.Name, "org.freedesktop.DBus.Error."); name {
	case "NoReply", "Disconnected", "ServiceUnknown", "NameHasNoOwner", "Timeout", "TimedOut", "LimitsExceeded":
		return false
	}
	return true
}

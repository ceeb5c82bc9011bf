package master

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
)

const (
	// recordWithin bounds how long a shutdown waits for its event to be recorded: a disk that hangs or is full does not
	// keep the master from ending.
	recordWithin = 2 * time.Second
	// toldWithin bounds how long an ending master waits until operators know its outcome.
	toldWithin = time.Second
)

// ending is the end of a master. The first request, a signal or that of an operator, decides whether the workers are
// left running.
type ending struct {
	mu       sync.Mutex
	begun    bool
	detach   bool
	operator bool          // an operator waits for the outcome
	asked    chan struct{} // closed when an operator is the first
	over     chan struct{} // closed when the workers are stopped or left
	err      error         // the outcome, once over is closed
}

func newEnding() *ending { return &ending{asked: make(chan struct{}), over: make(chan struct{})} }

// begin begins the end without an operator, if it has not begun. It reports whether the workers are left running.
func (e *ending) begin(detach bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.begun {
		e.begun, e.detach = true, detach
	}
	return e.detach
}

// ask begins the end for an operator. It reports whether the operator is the first, and fails if the end has begun in
// the other way.
func (e *ending) ask(detach bool) (first bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.begun && e.detach && !detach:
		return false, errors.New("the master is ending and leaves its workers running")
	case e.begun && !e.detach && detach:
		return false, errors.New("the master is ending and stops its workers")
	}
	first, e.begun, e.detach, e.operator = !e.begun, true, detach, true
	return first, nil
}

// end publishes the outcome, and reports whether an operator waits for it.
func (e *ending) end(err error) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
	close(e.over)
	return e.operator
}

// Shutdown makes [Master.Run] end as if its context had ended, with [supervisor.ErrDetach] as the cause if detach is
// set. It returns when that is recorded, with a function that waits until the workers are stopped or left, and returns
// the error of those that could not be stopped. It fails if Run is ending in the other way. Run must have been called.
func (m *Master) Shutdown(ctx context.Context, detach bool) (wait func(context.Context) error, err error) {
	first, err := m.ending.ask(detach)
	if err != nil {
		return nil, err
	}
	if first {
		m.recordShutdown(context.WithoutCancel(ctx), detach)
		close(m.ending.asked)
	}
	return func(ctx context.Context) error {
		select {
		case <-m.ending.over:
			return m.ending.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}, nil
}

func (m *Master) recordShutdown(ctx context.Context, detach bool) {
	event := records.Event{
		Time: time.Now(), Type: eventtype.Down, Detail: "the workers are stopped", Operator: supervisor.OperatorOf(ctx),
	}
	if detach {
		event.Type, event.Detail = eventtype.Detached, "the workers are left running"
	}
	ctx, cancel := context.WithTimeout(ctx, recordWithin)
	defer cancel()
	if err := m.store.Apply(ctx, records.AppendEvent(event)); err != nil {
		m.log.Warn("shutdown not recorded", "error", err)
	}
	m.log.Info("master stopping by command", "detach", detach)
}

// endAdmin ends the admin server. Operators that wait for the outcome get it first.
func (m *Master) endAdmin(outcome error) {
	if !m.ending.end(outcome) {
		m.admin.server.Stop()
		return
	}
	late := time.AfterFunc(toldWithin, m.admin.server.Stop)
	defer late.Stop()
	m.admin.server.GracefulStop()
}

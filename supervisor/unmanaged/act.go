package unmanaged

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// ErrNoProcess means that the process of a unit is not found now.
var ErrNoProcess = errors.New("its process is not found")

// NotAllowedError is returned for an act that the unit does not allow.
type NotAllowedError struct{ ID, Verb string }

func (e *NotAllowedError) Error() string {
	return fmt.Sprintf("%s is unmanaged, and its unit does not allow it: add %s to its allow", e.ID, e.Verb)
}

// Verbs of the events of acts, which are the words of a unit's allow.
const (
	verbSignal  = "signal"
	verbStop    = "stop"
	verbRestart = "restart"
)

// CheckAllowed returns a [*NotAllowedError] if the unit of the worker does not allow the verb.
func (s *Set) CheckAllowed(id, verb string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.items {
		if x.id == id && allows(x.unit, verb) {
			return nil
		}
	}
	return &NotAllowedError{id, verb}
}

func allows(u *unit.Spec, verb string) bool {
	switch verb {
	case verbSignal:
		return u.Allow.Signal
	case verbStop:
		return u.Allow.Stop
	case verbRestart:
		return u.Allow.Restart
	}
	return false
}

// Signal sends a signal to the process of a worker for an operator, when the history has it. The unit must allow that,
// and the process is proven to be that of the unit a moment before.
func (s *Set) Signal(ctx context.Context, id string, sig syscall.Signal, by *records.Operator) error {
	t, err := s.subject(id, verbSignal)
	if err != nil {
		return err
	}
	if err := s.intend(ctx, t, verbSignal, identity.SignalName(sig), by); err != nil {
		return err
	}
	return s.send(ctx, t, sig)
}

// killWait is how long a stop waits for the end of a process after SIGKILL.
const killWait = 5 * time.Second

// Stop ends the process of a worker for an operator: with SIGTERM, and with SIGKILL after the grace of the unit. The
// unit must allow that, and the process is proven to be that of the unit before each signal. Another program may start
// it again.
func (s *Set) Stop(ctx context.Context, id string, by *records.Operator) error {
	t, err := s.subject(id, verbStop)
	if err != nil {
		return err
	}
	if err := s.intend(ctx, t, verbStop, "", by); err != nil {
		return err
	}
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, t.unit.Stop.Grace}, {syscall.SIGKILL, killWait}} {
		err := s.send(ctx, t, step.signal)
		if errors.Is(err, process.ErrGone) {
			return nil
		}
		if err != nil {
			return err
		}
		over := time.NewTimer(step.wait)
		select {
		case <-t.target.Done():
			over.Stop()
			return nil
		case <-over.C:
		case <-ctx.Done():
			over.Stop()
			return ctx.Err()
		}
	}
	return errors.New("the process does not end, even by SIGKILL")
}

// Restart has systemd restart the unit that the process of a worker belongs to, and waits for that.
func (s *Set) Restart(ctx context.Context, id string, by *records.Operator) error {
	s.mu.Lock()
	var t subject
	for _, x := range s.items {
		if x.id == id {
			t = subject{id: id, unit: x.unit}
		}
	}
	s.mu.Unlock()
	if !allows(t.unit, verbRestart) {
		return &NotAllowedError{id, verbRestart}
	}
	if err := s.intend(ctx, t, verbRestart, t.unit.Discover.Systemd, by); err != nil {
		return err
	}
	return crashpoint.Do(crashpoint.Signal, func() error { return s.opts.restart(ctx, t.unit.Discover.Systemd) })
}

// subject is the process of a worker that an act is about.
type subject struct {
	id     string
	unit   *unit.Spec
	target target
}

// subject returns the process of a worker whose unit allows the verb.
func (s *Set) subject(id, verb string) (subject, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.items {
		switch {
		case x.id != id:
		case !allows(x.unit, verb):
			return subject{}, &NotAllowedError{id, verb}
		case x.watch == nil || !x.free():
			return subject{}, ErrNoProcess
		default:
			return subject{id, x.unit, x.watch.target}, nil
		}
	}
	return subject{}, &NotAllowedError{id, verb}
}

// prove returns an error unless the process is that of the unit now. The handle excludes another one with its PID.
func (s *Set) prove(ctx context.Context, t subject) error {
	if p := t.unit.Discover; p.Systemd != "" {
		return process.Own{MainPID: s.opts.mainPID}.CheckMain(ctx, p.Systemd, t.target.Identity().PID)
	}
	return t.target.Matches(t.unit.Discover)
}

// intend makes the event of an act durable before it is done.
func (s *Set) intend(ctx context.Context, t subject, verb, what string, by *records.Operator) error {
	detail := what
	if t.target != nil {
		detail = strings.TrimSpace(fmt.Sprintf("%s process %d", what, t.target.Identity().PID))
	}
	s.opts.Log.InfoContext(ctx, "process act asked for", "worker", t.id, "verb", verb, "reason", detail)
	e := records.Event{Time: time.Now(), Worker: t.id, Type: verb, Detail: detail, Operator: by}
	return crashpoint.Do(crashpoint.FoundRecord, func() error { return s.opts.apply(ctx, records.AppendEvent(e)) })
}

func (s *Set) send(ctx context.Context, t subject, sig syscall.Signal) error {
	if err := s.prove(ctx, t); err != nil {
		return err
	}
	return t.target.Signal(sig)
}

package worker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/ports"
	"github.com/core-tools/hsu-master/supervisor/probe"
)

// How often a starting worker is checked at first. Later, the time between two checks is a share of the time that the
// start has taken, and at most the interval of the check.
const (
	firstPause     = 20 * time.Millisecond
	firstExecPause = 500 * time.Millisecond // starting a process costs more than a question
	pauseShare     = 10
)

// How long a starting worker may find its port held by another process, and how often that is checked: a process
// that asks the kernel for a free port listens on it for a moment, and it may be the port just chosen for the worker.
const (
	ForeignPatience = time.Second
	foreignRecheck  = 10 * time.Millisecond
)

// startWait waits until a starting worker is ready: it listens on its port, if it must, and passes its check.
type startWait struct {
	subject
	progress *progress
	began    time.Time
	// announced returns the publications of the instance at the module registry.
	announced func() []records.Announcement
}

// wait returns the link to the worker and its port when it is ready, or the reason why it is not. The context ends the
// wait.
func (r startWait) wait(ctx context.Context) (l Link, port int, err error) {
	if r.rec.OwnPort && r.unit.Listens() {
		return r.waitOwnPort(ctx)
	}
	l, err = r.ready(ctx)
	return l, r.rec.Port, err
}

// ready is wait for a worker whose port is known.
func (r startWait) ready(ctx context.Context) (Link, error) {
	listens := r.rec.Port != 0 && r.unit.Listens()
	if listens {
		if err := r.listens(ctx); err != nil {
			return nil, err
		}
	}
	l, err := r.dial()
	if err != nil {
		return nil, err
	}
	spec, p := r.unit.Health.Readiness, r.prober(useStart, r.unit.Health.Readiness, l)
	switch {
	case spec.Type == probe.TypeNotify && r.notified != nil:
		err = r.notifies(ctx)
	case spec.Type == probe.TypeProcess, spec.Type == probe.TypeNotify, r.rec.Port == 0 && spec.UsesPort():
		err = r.settles(ctx)
	default:
		err = r.passes(ctx, spec, p)
	}
	switch {
	case err == nil:
		return l, nil
	case listens:
		err = fmt.Errorf("opened port %d but %w", r.rec.Port, err)
	}
	l.Shutdown()
	return nil, err
}

// passes waits until the worker passes its check.
func (r startWait) passes(ctx context.Context, spec probe.Spec, p probe.Prober) error {
	probing.Add(1)
	defer probing.Add(-1)
	r.progress.report(p.Describe(), nil, time.Time{})
	var answer error // the last one that was given in time
	for {
		bounded, cancel := context.WithTimeout(ctx, spec.Timeout)
		err := p.Ping(bounded)
		answered := bounded.Err() == nil || spec.Type == probe.TypeExec && ctx.Err() == nil
		cancel()
		if err == nil {
			return nil
		}
		pause := r.pause(spec)
		if answered {
			answer = err
			r.progress.report(p.Describe(), err, time.Now().Add(pause))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			if answer == nil {
				return fmt.Errorf("answered no %s within %s", p.Describe(), r.unit.Start.Timeout)
			}
			return fmt.Errorf("was not ready within %s: %s: %s",
				r.unit.Start.Timeout, p.Describe(), probe.Brief(answer))
		}
	}
}

// pause returns the time until the next check.
func (r startWait) pause(spec probe.Spec) time.Duration {
	first := max(firstPause, probeEvery*time.Duration(probing.Load()))
	if spec.Type == probe.TypeExec {
		first = firstExecPause
	}
	return min(max(first, time.Since(r.began)/pauseShare), spec.Interval)
}

// settles waits until the process has been running for the settling time. The end of the process ends the wait.
func (r startWait) settles(ctx context.Context) error {
	over := r.began.Add(r.unit.Start.Settle)
	r.progress.report(fmt.Sprintf("running for %s", r.unit.Start.Settle), errNotYet, over)
	settled := time.NewTimer(time.Until(over))
	defer settled.Stop()
	select {
	case <-settled.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("was not running for %s within %s", r.unit.Start.Settle, r.unit.Start.Timeout)
	}
}

var errNotYet = errors.New("not yet")

// listens waits until the worker's port is open and the worker's own.
func (r startWait) listens(ctx context.Context) error {
	port, limit := r.rec.Port, r.unit.Start.Timeout
	report := func(err error) { r.progress.report("port "+strconv.Itoa(port), err, time.Time{}) }
	// A reservation of the port may be what keeps the worker from opening it.
	patience := time.AfterFunc(min(ports.ReservePatience, limit/4), func() {
		r.env.Ports.Refused(r.unit.Name, r.worker)
	})
	defer patience.Stop()
	for since := time.Now(); ; {
		if err := r.env.AwaitListener(ctx, port, report); err != nil {
			return fmt.Errorf("did not open port %d within %s", port, limit)
		}
		err := launcher.CheckPort(r.inst, port)
		if !errors.Is(err, launcher.ErrForeignPort) || time.Since(since) >= ForeignPatience {
			r.progress.opened.Store(true)
			return err
		}
		report(launcher.ErrForeignPort)
		select {
		case <-time.After(foreignRecheck):
		case <-ctx.Done():
			return err
		}
	}
}

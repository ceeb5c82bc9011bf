package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/core-tools/hsu-core/go/domain"

	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/ports"
	"github.com/core-tools/hsu-master/supervisor/probe"
)

// How often a worker that has opened its port is pinged until it is ready.
const (
	readyPingInterval = 20 * time.Millisecond
	readyPingAttempts = 1 << 20 // the start timeout ends it, not a count
)

// How long a starting worker may find its port held by another process, and how often that is checked: a process
// that asks the kernel for a free port listens on it for a moment, and it may be the port just chosen for the worker.
const (
	ForeignPatience = time.Second
	foreignRecheck  = 10 * time.Millisecond
)

// readiness waits until a starting worker is ready: it listens on its port and answers a Ping, or, without a port, it
// has been running for a while.
type readiness struct {
	inst    launcher.Instance
	port    int           // 0: none
	settle  time.Duration // of a worker without a port
	timeout time.Duration // of the start, for messages; the context ends the wait
	startup *startup
	log     *slog.Logger

	awaitListener func(ctx context.Context, port int, refused func(error)) error
	dial          func(port int) (Link, error)
	refused       func() // called when the worker takes long to open its port
}

// wait returns the link to the worker when it is ready, or the reason why it is not.
func (r readiness) wait(ctx context.Context) (Link, error) {
	if r.port == 0 {
		return r.settles(ctx)
	}
	if err := r.listens(ctx); err != nil {
		return nil, err
	}
	l, err := r.dial(r.port)
	if err != nil {
		return nil, err
	}
	options := domain.RetryPingOptions{RetryAttempts: readyPingAttempts, RetryInterval: readyPingInterval}
	r.startup.report(l.Method().Describe(), nil)
	asked := reporting{Link: l, startup: r.startup}
	if err := domain.RetryPing(ctx, &asked, options, probe.CoreLogger(r.log)); err != nil {
		l.Shutdown()
		if asked.answer == nil {
			return nil, fmt.Errorf("opened port %d but answered no %s within %s",
				r.port, l.Method().Describe(), r.timeout)
		}
		return nil, fmt.Errorf("opened port %d but was not ready within %s: %s: %s",
			r.port, r.timeout, l.Method().Describe(), brief(asked.answer))
	}
	return l, nil
}

// settles waits until the process has been running for the settling time. The end of the process ends the wait.
func (r readiness) settles(ctx context.Context) (Link, error) {
	r.startup.report(fmt.Sprintf("running for %s", r.settle), errNotYet)
	settled := time.NewTimer(r.settle)
	defer settled.Stop()
	select {
	case <-settled.C:
		return processLink{r.inst}, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("was not running for %s within %s", r.settle, r.timeout)
	}
}

var errNotYet = errors.New("not yet")

// listens waits until the worker's port is open and the worker's own.
func (r readiness) listens(ctx context.Context) error {
	what := "port " + strconv.Itoa(r.port)
	patience := time.AfterFunc(min(ports.ReservePatience, r.timeout/4), r.refused)
	defer patience.Stop()
	for since := time.Now(); ; {
		if err := r.awaitListener(ctx, r.port, func(err error) { r.startup.report(what, err) }); err != nil {
			return fmt.Errorf("did not open port %d within %s", r.port, r.timeout)
		}
		err := launcher.CheckPort(r.inst, r.port)
		if !errors.Is(err, launcher.ErrForeignPort) || time.Since(since) >= ForeignPatience {
			r.startup.opened.Store(true)
			return err
		}
		r.startup.report(what, launcher.ErrForeignPort)
		select {
		case <-time.After(foreignRecheck):
		case <-ctx.Done():
			return err
		}
	}
}

// reporting is a link whose answers are reported while the worker starts.
type reporting struct {
	Link
	startup *startup
	answer  error // the last answer that the worker gave in time
}

func (r *reporting) Ping(ctx context.Context) error {
	err := r.Link.Ping(ctx)
	if ctx.Err() == nil {
		r.answer = err
		r.startup.report(r.Method().Describe(), err)
	}
	return err
}

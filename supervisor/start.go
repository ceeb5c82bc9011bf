package supervisor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/core-tools/hsu-core/go/domain"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// startResult is what waiting for a worker to get ready came to.
type startResult struct {
	incarnation uint64
	link        link
	err         error
}

// start records the intent, forks, records the fact and begins to wait for the
// worker to get ready. The state is "starting" already.
func (w *worker) start(ctx context.Context) {
	inst, err := w.fork(ctx)
	if ctx.Err() != nil {
		// Detached meanwhile: the next master finds it by the token of the intent.
		if inst != nil {
			_ = inst.Close()
		}
		return
	}
	if errors.Is(err, errStopping) {
		w.rec.Instance = nil
		w.leaving = true
		w.step(ctx, event{kind: evShutdown})
		return
	}
	if err != nil {
		w.rec.Instance = nil
		w.step(ctx, event{kind: evStartFailed, reason: err.Error(), ours: ownFault(err)})
		return
	}
	w.state.alive = true
	// Not into the instance that readers have been shown.
	rec := identified(*w.rec.Instance, inst.Identity())
	w.rec.Instance = &rec
	w.took(inst, false)
	// The worker starts up while its PID is being recorded.
	w.await(ctx)
	w.record(ctx, w.event("started", ""))
}

// errOwnFault means that the worker was not started for want of something of the
// master's own. It costs the worker no budget: service resumes when the fault goes.
var errOwnFault = errors.New("the master lacks what a start needs")

// ownFault tells whether a start failed for a reason that is not the worker's.
func ownFault(err error) bool {
	return errors.Is(err, errOwnFault) || slices.ContainsFunc(ownFaults, func(own syscall.Errno) bool { return errors.Is(err, own) })
}

// ownFaults are what the kernel says where the machine, or a limit on the master,
// is at fault.
var ownFaults = []syscall.Errno{
	syscall.EAGAIN, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS,
	syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO,
}

// errStopping means that nothing is started any more.
var errStopping = errors.New("the master is stopping")

func (w *worker) fork(ctx context.Context) (instance, error) {
	if w.stopping() {
		return nil, errStopping
	}
	var port int
	err := crashpoint.Do(crashpoint.Port, func() (err error) {
		port, err = w.sup.ports.choose(w.id, w.rec.Port)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errOwnFault, err)
	}
	lease, err := w.sup.launcher.lease(w.id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errOwnFault, err)
	}
	defer func() { _ = lease.Close() }() // the child has its own descriptor
	spec, exe := w.version()
	var events []store.Event
	if w.rec.Port != 0 && w.rec.Port != port {
		events = append(events, w.event("port-changed", fmt.Sprintf("%d is taken by another process, using %d", w.rec.Port, port)))
	}
	w.rec.Port = port
	w.rec.Incarnation++
	w.confirmed = false
	w.rec.SpecHash = spec
	w.rec.Outdated = false
	w.rec.Instance = &store.Instance{
		Token:   newToken(),
		BootID:  w.sup.bootID,
		Port:    port,
		ExeHash: exe,
		Started: time.Now(),
		Lease:   store.FileID(lease.ID()),
		UID:     uint32(os.Geteuid()), //nolint:gosec // a uid is 32 bits wide where there is one
	}
	if !w.record(ctx, events...) {
		return nil, fmt.Errorf("%w: the start could not be recorded", errOwnFault)
	}
	if w.stopping() {
		return nil, errStopping
	}
	return w.sup.launcher.start(w.unit, w.id, *w.rec.Instance, lease)
}

// stopping tells that the master has begun to stop, also while this goroutine had
// no time to hear of it.
func (w *worker) stopping() bool {
	select {
	case <-w.shutdown:
		return true
	default:
		return false
	}
}

// version tells what the worker is started from, empty where that cannot be read:
// an executable may be executed without being readable, and where it is missing
// the start says so.
func (w *worker) version() (spec, exe string) {
	spec, err := w.unit.Hash()
	if err != nil {
		w.log.Debug("worker's executable not read", "error", err)
		return "", ""
	}
	exe, _ = process.HashExecutable(w.unit.Path) // just read, so known
	return spec, exe
}

// newToken returns 128 random bits that no other instance ever has.
func newToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}

// How long and how often a worker that has opened its port is asked whether it
// is ready.
const (
	readyPingInterval = 20 * time.Millisecond
	readyPingAttempts = 1 << 20 // the start timeout ends it, not a count
)

// await lets a helper wait until the worker is ready, or its time is over.
func (w *worker) await(ctx context.Context) {
	incarnation, port, inst := w.rec.Incarnation, w.rec.Instance.Port, w.inst
	wait, cancel := context.WithTimeoutCause(ctx, w.unit.StartTimeout, errStartTimeout)
	w.cancel = cancel
	w.helpers.Go(func() {
		defer cancel()
		link, err := w.ready(wait, inst, port)
		if err != nil && ctx.Err() != nil {
			return // the master has ended the wait, not the worker: it goes on starting
		}
		select {
		case w.starts <- startResult{incarnation: incarnation, link: link, err: err}:
		case <-ctx.Done():
			if link != nil {
				link.Shutdown()
			}
		}
	})
}

var errStartTimeout = errors.New("start timeout")

// How long a starting worker may find its port in another's hands, and how often that
// is looked at: who asks the kernel for a free port listens on it for a moment, and it
// may be the one that was just chosen for the worker.
const (
	foreignPatience = time.Second
	foreignRecheck  = 10 * time.Millisecond
)

// listens waits until the worker's port is open and the worker's own.
func (w *worker) listens(ctx context.Context, inst instance, port int) error {
	for since := time.Now(); ; {
		if err := w.sup.probe(ctx, port); err != nil {
			return fmt.Errorf("did not open port %d within %s", port, w.unit.StartTimeout)
		}
		err := ownPort(inst, port)
		if !errors.Is(err, errForeignPort) || time.Since(since) >= foreignPatience {
			return err
		}
		select {
		case <-time.After(foreignRecheck):
		case <-ctx.Done():
			return err
		}
	}
}

func (w *worker) ready(ctx context.Context, inst instance, port int) (link, error) {
	if err := w.listens(ctx, inst, port); err != nil {
		return nil, err
	}
	l, err := w.sup.dial(port)
	if err != nil {
		return nil, err
	}
	options := domain.RetryPingOptions{RetryAttempts: readyPingAttempts, RetryInterval: readyPingInterval}
	if err := domain.RetryPing(ctx, l, options, CoreLogger(w.log)); err != nil {
		l.Shutdown()
		return nil, fmt.Errorf("opened port %d but answered no Ping within %s", port, w.unit.StartTimeout)
	}
	return l, nil
}

var errForeignPort = errors.New("is held by another process")

// ownPort fails where the port answers, but not for the worker.
func ownPort(inst instance, port int) error {
	owner, err := inst.OwnsPort(port)
	if owner == process.PortForeign {
		return foreignPort(port)
	}
	if err != nil && owner != process.PortUnknown {
		return fmt.Errorf("tell who listens on port %d: %w", port, err)
	}
	// Where it cannot be read, the Ping that follows decides.
	return nil
}

func foreignPort(port int) error { return fmt.Errorf("port %d %w", port, errForeignPort) }

func (w *worker) onStart(ctx context.Context, r startResult) {
	if r.incarnation != w.rec.Incarnation || w.burying || !w.state.alive || w.state.status != store.StatusStarting {
		// It ended, or is being stopped: the waiting was cut short.
		if r.link != nil {
			r.link.Shutdown()
		}
		return
	}
	if r.err != nil {
		w.step(ctx, event{kind: evNotReady, reason: r.err.Error()})
		return
	}
	w.connected(ctx, r.link)
	w.step(ctx, event{kind: evReady})
}

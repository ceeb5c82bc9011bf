package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/offsets"
	"github.com/core-tools/hsu-master/supervisor/logs/rotate"
	"github.com/core-tools/hsu-master/supervisor/ports"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/registrations"
	"github.com/core-tools/hsu-master/supervisor/schedule"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/unmanaged"
	"github.com/core-tools/hsu-master/supervisor/usage"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// ErrDetach leaves the workers running for the next master to adopt if the context of [Supervisor.Serve] is
// cancelled with it as the cause.
var ErrDetach = errors.New("detached: workers are left running")

// Options configure a [Supervisor]. Store is required; the rest may be zero.
type Options struct {
	Store *store.DB
	// RuntimeDir holds the workers' leases; empty means "run" in the state directory.
	RuntimeDir string
	// LogDir holds the workers' output, a file each; empty means "logs" in the state directory.
	LogDir string
	// Offsets are the offsets of the workers' logs, for their readers; nil if there are none.
	Offsets *offsets.Tables
	// Log gets a line per worker event; nil discards them.
	Log *slog.Logger
	// Rand is the source of jitter; nil means a seeded one.
	Rand *rand.Rand
	// Policies maps the name of a service to the policy for its calls; "*" applies to all other services.
	Policies map[string]services.Policy
	// Keeper keeps the workers' handles while no master runs; if nil, they are not kept.
	Keeper launcher.Keeper
	// Environ is the environment that workers inherit, [os.Environ] if nil. The master's own variables are removed
	// from it.
	Environ []string
	// OnEssential is called when an essential worker has ended, before Serve stops the others and returns an
	// [EssentialError]. It must not block; nil is not called.
	OnEssential func()

	dialRegistered func(address string) (registrations.Prober, error) // tests put a fake here
}

// withDefaults returns the options with every empty field replaced.
func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Keeper == nil {
		o.Keeper = launcher.NoKeeper{}
	}
	if o.RuntimeDir == "" {
		o.RuntimeDir = filepath.Join(o.Store.Dir(), "run")
	}
	if o.LogDir == "" {
		o.LogDir = logs.DefaultDir(o.Store.Dir())
	}
	if o.Offsets == nil {
		o.Offsets = &offsets.Tables{}
	}
	if o.Environ == nil {
		o.Environ = os.Environ()
	}
	return o
}

// Supervisor runs the workers of its units. Its methods may be called from any goroutine.
type Supervisor struct {
	opts       Options
	log        *slog.Logger
	services   *services.Registry
	registered *registrations.Set
	watched    *unmanaged.Set // processes that something else starts
	recovered  chan struct{}
	commands   chan func(work context.Context) // for the goroutine of Serve
	ended      chan struct{}                   // closed when Serve returns
	hurry      chan struct{}
	hurryOnce  sync.Once
	stopping   chan struct{} // closed when Serve begins to stop the workers

	env  worker.Env                                          // of the workers; tests put fakes into it
	scan func(ctx context.Context) ([]process.Holder, error) // lists the processes; tests put a fake here

	rotate  func(ctx context.Context) // rotates the logs until ctx ends; tests of months do without
	helpers sync.WaitGroup            // goroutines of Serve, besides those of the workers
	meter   *usage.Meter
	guard   *usage.Guard

	set     set
	changes *changer

	mu     sync.Mutex
	status Status
}

// Status is the state of the master as a whole.
type Status string

const (
	Recovering Status = "recovering"
	Running    Status = "running"
	Stopping   Status = "stopping"
)

// New prepares a supervisor. It starts nothing: see [Supervisor.Serve].
func New(opts Options, units ...unit.Spec) (*Supervisor, error) {
	if opts.Store == nil {
		return nil, errors.New("supervisor: a store is required")
	}
	opts = opts.withDefaults()
	s := &Supervisor{
		opts:      opts,
		log:       opts.Log,
		recovered: make(chan struct{}),
		commands:  make(chan func(context.Context)),
		ended:     make(chan struct{}),
		hurry:     make(chan struct{}),
		stopping:  make(chan struct{}),
		scan:      process.Scan,
		status:    Recovering,
	}
	s.services = services.New(services.Options{
		Policies: opts.Policies, Hopeless: s.hopeless, Rand: split(opts.Rand), Log: opts.Log,
	})
	checks := probe.NewScheduler()
	s.registered = registrations.New(registrations.Options{
		Store: opts.Store, Services: s.services, Checks: checks, Log: s.log, Hurry: s.hurry, Dial: opts.dialRegistered,
	})
	if err := check(units); err != nil {
		return nil, err
	}
	secrets, err := opts.Store.SecretKey()
	if errors.Is(err, store.ErrKeyNotKept) {
		s.log.Error("secret key not kept", "error", err)
	} else if err != nil {
		return nil, err
	}
	s.changes = newChanger(s, units)
	s.preRegister()
	if s.env, err = s.newEnv(checks, secrets); err != nil {
		return nil, err
	}
	s.rotate = s.env.Rotator.ServeAwaiting
	s.watched = s.newWatched(checks)
	s.meter = usage.NewMeter(s.set.subjects, func(
		ctx context.Context, subjects []launcher.Subject,
	) ([]process.Resources, error) {
		return s.env.Launcher.Measure(ctx, subjects)
	})
	s.guard = usage.NewGuard(s.meter, func() []usage.Limited { return s.set.limited(s.log) }, s.log)
	s.set.unmanaged = s.watched.Infos
	return s, nil
}

// newEnv returns what all workers have in common, and makes the folders of their leases and logs.
func (s *Supervisor) newEnv(checks *probe.Scheduler, secrets records.SecretKey) (worker.Env, error) {
	opts := s.opts
	bootID, err := process.BootID()
	if err != nil {
		return worker.Env{}, fmt.Errorf("tell this boot from others: %w", err)
	}
	for _, dir := range []string{opts.RuntimeDir, opts.LogDir} {
		if err := safefile.MkdirAll(dir); err != nil {
			return worker.Env{}, fmt.Errorf("make the folder of leases or logs: %w", err)
		}
	}
	return worker.Env{
		Store: opts.Store, Log: opts.Log, LogDir: opts.LogDir, Keeper: opts.Keeper,
		Launcher: launcher.New(launcher.Options{
			MasterID:   opts.Store.MasterID(),
			StateDir:   func() string { return opts.Store.StateDirID().String() },
			RuntimeDir: opts.RuntimeDir, LogDir: opts.LogDir, Environ: opts.Environ, Log: opts.Log,
		}),
		Notify: worker.NewNotifier(opts.RuntimeDir),
		Starts: worker.NewStartQueue(), Turns: new(worker.Turns),
		Services: s.services, Ports: &ports.Book{},
		Rotator: rotate.New(logEvents{opts.Store, opts.Log}.handle, opts.Offsets),
		BootID:  bootID, BootTime: process.BootTime, Jitter: lockedFloat64(opts.Rand), Checks: checks,
		Clock:     schedule.NewClock(nil),
		Recovered: s.recovered, Hurry: s.hurry, Stopping: s.stopping, Blocked: s.set.blocked, Secrets: secrets,
		Dial:          func(port int) (worker.Link, error) { return worker.Dial(port, opts.Log) },
		Prober:        probe.New,
		AwaitListener: worker.AwaitListener,
	}, nil
}

// preRegister offers the services that will be available after recovery, so that earlier calls wait for them.
func (s *Supervisor) preRegister() {
	snap, err := s.opts.Store.Present()
	s.set.setUnits(recovery.Wanted(s.changes.configured, recovery.Replicas(s.changes.configured, snap.Units)))
	for _, u := range s.set.units {
		if (u.Replicas > 0 || u.Disabled) && !u.NoServices {
			s.services.Offer(services.OfUnit(u.Name), u.Services...)
		}
	}
	if err != nil {
		return // Serve reports the error
	}
	rc := recovery.Context{Now: func() time.Duration { return 0 }}
	for _, slot := range rc.Slots(snap.Workers, s.set.units, false) {
		names := worker.Reflected(slot.Rec.Services)
		if !slot.Unit.NoServices && !slot.Unit.NoOthers && !slot.State.Retired && len(names) > 0 {
			s.services.Offer(services.OfWorker(slot.ID), names...)
		}
	}
	s.registered.Restore(snap.Registered)
}

// split returns a separate random source seeded from r, so that the two need no common lock.
func split(r *rand.Rand) *rand.Rand {
	if r == nil {
		return nil
	}
	return rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
}

func lockedFloat64(r *rand.Rand) func() float64 {
	if r == nil {
		return rand.Float64
	}
	var mu sync.Mutex
	return func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return r.Float64()
	}
}

// Serve recovers the workers that an earlier master left, starts the missing ones and keeps them running until ctx
// ends. Then it stops every worker within its grace, in parallel but for those that others depend on, which are stopped
// when the others have ended, or leaves them running if the cause is [ErrDetach]. It returns when that is done, with an
// error for each worker that could not be stopped. If an essential worker fails or ends, Serve stops every worker too,
// and returns an [EssentialError].
func (s *Supervisor) Serve(ctx context.Context) error {
	// The workers' goroutines outlive ctx because they stop the workers.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	s.env.Essential = stopper(ctx, fail, s.log, s.opts.OnEssential)
	defer s.changes.rolling.Wait()
	defer close(s.ended)
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { s.env.Checks.Serve(work) })
	beside.Go(func() { s.env.Clock.Serve(work) })
	beside.Go(func() { s.rotate(work) })
	beside.Go(func() { s.watched.Serve(work) })
	defer cancel()
	defer s.helpers.Wait()
	defer s.registered.Stop()
	s.registered.Start(work)
	beside.Go(func() { s.set.unblockWaiting(work, s.services) })
	if err := s.recover(ctx, work); err != nil {
		return err
	}
	offerDisabled(s.services, s.set.specs())
	beside.Go(func() { s.guard.Serve(work) })
	s.setStatus(Running)
	s.services.Reconsider()
	close(s.recovered)
	s.changes.rolling.Go(func() { resumeRollouts(work, s) })

	for running := true; running; {
		select {
		case do := <-s.commands:
			do(work)
		case <-ctx.Done():
			running = false
		}
	}
	s.Drain()
	if errors.Is(context.Cause(ctx), ErrDetach) {
		crashpoint.Pass(crashpoint.Detach, func() {
			cancel()
			s.wait(work, nil, nil)
		})
		return nil
	}
	close(s.stopping)
	s.helpers.Go(func() { stopInOrder(s.set.list(), s.set.dependencies()) })
	let := make(chan struct{})
	go func() {
		defer close(let)
		s.registered.Stop()
	}()
	s.wait(work, s.commands, let)
	return outcome(context.Cause(ctx), s.leftovers())
}

// wait returns when every worker's goroutine has returned and also is closed, unless also is nil. Meanwhile it
// executes commands.
func (s *Supervisor) wait(work context.Context, commands <-chan func(context.Context), also <-chan struct{}) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, w := range s.set.list() {
			<-w.Finished()
		}
		if also != nil {
			<-also
		}
	}()
	for {
		select {
		case do := <-commands:
			do(work)
		case <-done:
			return
		}
	}
}

func (s *Supervisor) leftovers() error {
	var errs []error
	for _, w := range s.set.list() {
		if err := w.Leftover(); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", w.ID(), err))
		}
	}
	return errors.Join(errs...)
}

// Drain prepares the shutdown: calls that wait for an endpoint that is not ready fail now, and ready endpoints are
// used until Serve's context ends. The status is [Stopping] from then on.
func (s *Supervisor) Drain() {
	s.setStatus(Stopping)
	s.services.Reconsider()
}

// Hurry removes the workers' grace from the stop under way, or from the next one. It is for an operator that
// asks twice.
func (s *Supervisor) Hurry() { s.hurryOnce.Do(func() { close(s.hurry) }) }

// Recovered returns a channel that is closed when every worker that an earlier master left is recovered: adopted,
// found dead, or held. Newly started workers may still be starting.
func (s *Supervisor) Recovered() <-chan struct{} { return s.recovered }

// Status returns the state of the master as a whole.
func (s *Supervisor) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// setStatus changes the status. Stopping is final.
func (s *Supervisor) setStatus(status Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status != Stopping {
		s.status = status
	}
}

// Alive returns nil if the supervisor's loop answers. It fails if ctx ends first: the loop hangs or does not run.
func (s *Supervisor) Alive(ctx context.Context) error { return s.do(ctx, func(context.Context) {}) }

// do runs f in the goroutine of Serve, which does nothing that blocks, and waits for it.
func (s *Supervisor) do(ctx context.Context, f func(work context.Context)) error {
	done := make(chan struct{})
	select {
	case s.commands <- func(work context.Context) { defer close(done); f(work) }:
		<-done
		return nil
	case <-s.ended:
		return errors.New("supervisor has ended")
	case <-ctx.Done():
		return fmt.Errorf("supervisor loop did not answer: %w", ctx.Err())
	}
}

// Workers lists all workers, grouped by unit and in order, and then the unmanaged units.
func (s *Supervisor) Workers() []worker.Info {
	workers := s.set.list()
	infos := make([]worker.Info, 0, len(workers))
	resolver := s.set.resolve()
	for _, w := range workers {
		if info := w.Info(); info != nil {
			shown := *info
			shown.WaitingFor = w.WaitingFor()
			if b := resolver.Of(shown.Unit); b.Blocked() && shown.Status == records.StatusWaiting {
				shown.Reason = b.Reason // it follows the dependencies, and is not recorded each time
			}
			shown.Checks = w.Checks()
			shown.StatusText = w.StatusText()
			infos = append(infos, shown)
		}
	}
	return append(infos, s.watched.Infos()...)
}

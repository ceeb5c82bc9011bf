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
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// ErrDetach, as the cause that the context of [Supervisor.Serve] is cancelled
// with, leaves the workers running for the next master to adopt.
var ErrDetach = errors.New("detached: workers are left running")

// Options configure a [Supervisor]. Store is required; the rest may be zero.
type Options struct {
	Store *store.DB
	// RuntimeDir holds the workers' leases; empty means "run" in the state directory.
	RuntimeDir string
	// LogDir holds the workers' output, a file each; empty means "logs" in the state directory.
	LogDir string
	// Log gets a line per worker event; nil discards them.
	Log *slog.Logger
	// Rand is the source of jitter; nil means a seeded one.
	Rand *rand.Rand
	// Policies are how the calls of services are treated, by name; "*" is for all others.
	Policies map[string]services.Policy
	// Keeper keeps the workers' handles while no master runs; nil: nobody does.
	Keeper Keeper
	// Environ is what workers inherit from, [os.Environ] if nil. Variables that
	// are the master's own are left out of it.
	Environ []string
}

// Keeper keeps handles on processes beyond the life of this program, so that the
// next master learns the exit code of a worker that ended while there was none.
// systemd's file descriptor store is one.
type Keeper interface {
	Keep(token string, handle *os.File) error
	Drop(token string) error
	// Kept returns what an earlier master has given to keep, nil where nothing is.
	Kept(token string) *os.File
}

// nobody keeps nothing.
type nobody struct{}

func (nobody) Keep(string, *os.File) error { return nil }
func (nobody) Drop(string) error           { return nil }
func (nobody) Kept(string) *os.File        { return nil }

// Supervisor runs the workers of its units. Its methods may be called from any
// goroutine.
type Supervisor struct {
	opts      Options
	units     []Unit
	log       *slog.Logger
	services  *services.Registry
	outside   *outside
	ports     portBook
	recovered chan struct{}
	beat      chan chan<- struct{}
	hurry     chan struct{}
	hurryOnce sync.Once
	jitter    func() float64
	epoch     time.Time // from which the phases of Pings count
	scene     *scene    // of the recovery, from its beginning

	// What the outside world is made of; tests put fakes here.
	launcher launcher
	dial     func(port int) (link, error)
	probe    func(ctx context.Context, port int) error
	scan     func(ctx context.Context) ([]process.Holder, error)
	bootTime func() time.Duration
	bootID   string

	mu      sync.Mutex
	workers []*worker
	status  Status
}

// Status is what the master as a whole is doing.
type Status string

const (
	Recovering Status = "recovering"
	Running    Status = "running"
	Stopping   Status = "stopping"
)

// New prepares a supervisor. It starts nothing: see [Supervisor.Serve].
func New(opts Options, units ...Unit) (*Supervisor, error) {
	if opts.Store == nil {
		return nil, errors.New("supervisor: a store is required")
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Keeper == nil {
		opts.Keeper = nobody{}
	}
	if opts.RuntimeDir == "" {
		opts.RuntimeDir = filepath.Join(opts.Store.Dir(), "run")
	}
	if opts.LogDir == "" {
		opts.LogDir = filepath.Join(opts.Store.Dir(), "logs")
	}
	if opts.Environ == nil {
		opts.Environ = os.Environ()
	}
	s := &Supervisor{
		opts:      opts,
		log:       opts.Log,
		recovered: make(chan struct{}),
		beat:      make(chan chan<- struct{}),
		hurry:     make(chan struct{}),
		jitter:    lockedFloat64(opts.Rand),
		probe:     awaitListener,
		scan:      process.Scan,
		bootTime:  process.BootTime,
		status:    Recovering,
		epoch:     time.Now(),
	}
	s.services = services.With(services.Options{Policies: opts.Policies, Hopeless: s.hopeless, Rand: split(opts.Rand), Log: opts.Log})
	s.outside = newOutside(s)
	s.dial = func(port int) (link, error) { return dialWorker(port, s.log) }
	names := map[string]bool{}
	var errs []error
	for _, u := range units {
		if err := u.validate(); err != nil {
			errs = append(errs, err)
		}
		if names[u.Name] {
			errs = append(errs, fmt.Errorf("unit name %q: given twice", u.Name))
		}
		names[u.Name] = true
		s.units = append(s.units, u.withDefaults())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s.foresee()
	var err error
	if s.bootID, err = process.BootID(); err != nil {
		return nil, fmt.Errorf("tell this boot from others: %w", err)
	}
	for _, dir := range []string{opts.RuntimeDir, opts.LogDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the folder of leases or logs: %w", err)
		}
	}
	launcher := &osLauncher{
		masterID:   opts.Store.MasterID(),
		stateDir:   func() string { return process.FileID(opts.Store.StateDirID()).String() },
		runtimeDir: opts.RuntimeDir,
		logDir:     opts.LogDir,
		environ:    workerEnviron(opts.Environ),
	}
	if dir, delegated := process.DelegatedCgroup(); delegated {
		launcher.cgroups = dir
	}
	s.launcher = launcher
	return s, nil
}

// foresee says what will be offered when the master has recovered, so that calls which
// come before wait for it.
func (s *Supervisor) foresee() {
	for _, u := range s.units {
		if u.Replicas > 0 {
			s.services.Offer(foreseen(u), u.Services...)
		}
	}
	snap, err := s.opts.Store.Snapshot()
	if err != nil {
		return // Serve says so
	}
	sc := scene{now: func() time.Duration { return 0 }}
	for _, slot := range sc.slots(snap.Workers, s.units, false) {
		if names := reflected(slot.rec.Services); !slot.state.retired && len(names) > 0 {
			s.services.Offer(slot.id, names...)
		}
	}
	s.outside.recall(snap.Registered)
}

// foreseen is who offers what a unit is said to offer before its workers do; no worker
// has such a name.
func foreseen(u Unit) string { return u.Name + " " }

// split returns another source of chance, which needs no lock that r needs.
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

// Serve recovers what an earlier master left, starts what is missing and keeps
// it running until ctx ends. Then it stops every worker, in parallel and within
// their grace, or leaves them running where the cause is [ErrDetach]; it returns
// when that is done, with an error for what could not be stopped.
func (s *Supervisor) Serve(ctx context.Context) error {
	// The workers' goroutines outlive ctx: they are what stops the workers.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer s.outside.end()
	s.outside.begin(work)
	if err := s.recover(ctx, work); err != nil {
		return err
	}
	for _, u := range s.units {
		s.services.Offer(foreseen(u)) // its workers speak for themselves
	}
	s.setStatus(Running)
	s.services.Reconsider()
	close(s.recovered)

	for running := true; running; {
		select {
		case answer := <-s.beat:
			answer <- struct{}{}
		case <-ctx.Done():
			running = false
		}
	}
	s.setStatus(Stopping)
	s.services.Reconsider()
	if errors.Is(context.Cause(ctx), ErrDetach) {
		crashpoint.Pass(crashpoint.Detach, func() {
			cancel()
			s.wait(nil, nil)
		})
		return nil
	}
	for _, w := range s.list() {
		close(w.shutdown)
	}
	let := make(chan struct{})
	go func() {
		defer close(let)
		s.outside.end()
	}()
	s.wait(s.beat, let)
	return s.leftovers()
}

// wait until every worker's goroutine has returned and also is closed, where it is not
// nil, answering liveness checks.
func (s *Supervisor) wait(beat <-chan chan<- struct{}, also <-chan struct{}) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, w := range s.list() {
			<-w.finished
		}
		if also != nil {
			<-also
		}
	}()
	for {
		select {
		case answer := <-beat:
			answer <- struct{}{}
		case <-done:
			return
		}
	}
}

func (s *Supervisor) leftovers() error {
	var errs []error
	for _, w := range s.list() {
		if w.leftover != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", w.id, w.leftover))
		}
	}
	return errors.Join(errs...)
}

// Hurry makes the stop that is under way, or the next one, give no worker any
// grace: for the operator who asks twice.
func (s *Supervisor) Hurry() { s.hurryOnce.Do(func() { close(s.hurry) }) }

// Recovered is closed when every worker that an earlier master left is settled:
// adopted, found dead, or held. Workers that are started anew may still be starting.
func (s *Supervisor) Recovered() <-chan struct{} { return s.recovered }

// Status tells what the supervisor as a whole is doing.
func (s *Supervisor) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *Supervisor) setStatus(status Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

// Alive returns nil when the supervisor's loop answered. It fails when ctx ends
// first: the loop hangs, or does not run.
func (s *Supervisor) Alive(ctx context.Context) error {
	answer := make(chan struct{}, 1)
	select {
	case s.beat <- answer:
	case <-ctx.Done():
		return fmt.Errorf("supervisor loop did not answer: %w", ctx.Err())
	}
	<-answer
	return nil
}

// WorkerInfo is a worker as the running master sees it.
type WorkerInfo struct {
	store.Worker
	// Adopted: the present master did not start the instance, it found it.
	Adopted bool
	// Ready: requests may go to it.
	Ready bool
	// LogPath is the file that the worker writes to.
	LogPath string
}

// Workers lists all workers, those of one unit together and in order.
func (s *Supervisor) Workers() []WorkerInfo {
	workers := s.list()
	infos := make([]WorkerInfo, 0, len(workers))
	for _, w := range workers {
		if info := w.info.Load(); info != nil {
			infos = append(infos, *info)
		}
	}
	return infos
}

func (s *Supervisor) list() []*worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.workers
}

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
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/registrations"
	"github.com/core-tools/hsu-master/supervisor/services"
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
	// Log gets a line per worker event; nil discards them.
	Log *slog.Logger
	// Rand is the source of jitter; nil means a seeded one.
	Rand *rand.Rand
	// Policies maps the name of a service to the policy for its calls; "*" applies to all other services.
	Policies map[string]services.Policy
	// Keeper keeps the workers' handles while no master runs; if nil, they are not kept.
	Keeper Keeper
	// Environ is the environment that workers inherit, [os.Environ] if nil. The master's own variables are removed
	// from it.
	Environ []string

	dialRegistered func(address string) (registrations.Prober, error) // tests put a fake here
}

// Keeper keeps handles on processes beyond the life of this program, so that the next master learns the exit code
// of a worker that ended while no master ran. systemd's file descriptor store is one.
type Keeper interface {
	Keep(token string, handle *os.File) error
	Drop(token string) error
	// Kept returns the handle that an earlier master has given to Keep, nil if there is none.
	Kept(token string) *os.File
}

// nobody is a Keeper that keeps nothing.
type nobody struct{}

func (nobody) Keep(string, *os.File) error { return nil }
func (nobody) Drop(string) error           { return nil }
func (nobody) Kept(string) *os.File        { return nil }

// Supervisor runs the workers of its units. Its methods may be called from any goroutine.
type Supervisor struct {
	opts       Options
	units      []Unit
	log        *slog.Logger
	services   *services.Registry
	registered *registrations.Set
	ports      portBook
	recovered  chan struct{}
	beat       chan chan<- struct{}
	hurry      chan struct{}
	hurryOnce  sync.Once
	jitter     func() float64
	epoch      time.Time        // start of the phases of Pings
	recovery   *recoveryContext // of the present recovery, or of the last one

	// Access to the outside world; tests put fakes here.
	launcher launcher
	dial     func(port int) (link, error)
	probe    func(ctx context.Context, port int, refused func(error)) error
	scan     func(ctx context.Context) ([]process.Holder, error)
	bootTime func() time.Duration
	bootID   string

	strays sync.WaitGroup // goroutines that stop processes without a slot

	mu      sync.Mutex
	workers []*worker
	status  Status
}

// Status is the state of the master as a whole.
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
		opts.LogDir = defaultLogDir(opts.Store.Dir())
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
	s.services = services.With(services.Options{
		Policies: opts.Policies, Hopeless: s.hopeless, Rand: split(opts.Rand), Log: opts.Log,
	})
	s.registered = registrations.New(registrations.Options{
		Store: opts.Store, Services: s.services, Log: s.log, Hurry: s.hurry, Dial: opts.dialRegistered,
	})
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
	s.preRegister()
	var err error
	if s.bootID, err = process.BootID(); err != nil {
		return nil, fmt.Errorf("tell this boot from others: %w", err)
	}
	for _, dir := range []string{opts.RuntimeDir, opts.LogDir} {
		if err := safefile.MkdirAll(dir); err != nil {
			return nil, fmt.Errorf("make the folder of leases or logs: %w", err)
		}
	}
	s.launcher = newLauncher(opts)
	return s, nil
}

// preRegister offers the services that will be available after recovery, so that earlier calls wait for them.
func (s *Supervisor) preRegister() {
	for _, u := range s.units {
		if u.Replicas > 0 && !u.NoServices {
			s.services.Offer(preRegistered(u), u.Services...)
		}
	}
	snap, err := s.opts.Store.Snapshot()
	if err != nil {
		return // Serve reports the error
	}
	rc := recoveryContext{now: func() time.Duration { return 0 }}
	for _, slot := range rc.slots(snap.Workers, s.units, false) {
		if names := reflected(slot.rec.Services); !slot.unit.NoServices && !slot.state.retired && len(names) > 0 {
			s.services.Offer(slot.id, names...)
		}
	}
	s.registered.Restore(snap.Registered)
}

// preRegistered returns the ID under which the services of a unit are offered before its workers are ready. No worker
// has such an ID.
func preRegistered(u Unit) string { return u.Name + " " }

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
// ends. Then it stops every worker, in parallel and within their grace, or leaves them running if the cause is
// [ErrDetach]. It returns when that is done, with an error for each worker that could not be stopped.
func (s *Supervisor) Serve(ctx context.Context) error {
	// The workers' goroutines outlive ctx because they stop the workers.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer s.strays.Wait()
	defer s.registered.Stop()
	s.registered.Start(work)
	if err := s.recover(ctx, work); err != nil {
		return err
	}
	for _, u := range s.units {
		s.services.Offer(preRegistered(u)) // its workers are offered separately
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
	s.Drain()
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
		s.registered.Stop()
	}()
	s.wait(s.beat, let)
	return s.leftovers()
}

// wait returns when every worker's goroutine has returned and also is closed, unless also is nil. Meanwhile it
// answers liveness checks.
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
	// Adopted reports whether the master found the instance running instead of starting it.
	Adopted bool
	// Ready reports whether requests may go to the worker.
	Ready bool
	// WaitingFor is the probe that a starting worker has to pass and its last answer, such as "Ping: connection
	// refused"; "" if the worker is not starting.
	WaitingFor string
	// Probe is the kind of health check: "ping", "grpc" or "tcp"; "" while the worker is not connected.
	Probe string
	// LogPath is the file that the worker writes to.
	LogPath string
}

// Workers lists all workers, grouped by unit and in order.
func (s *Supervisor) Workers() []WorkerInfo {
	workers := s.list()
	infos := make([]WorkerInfo, 0, len(workers))
	for _, w := range workers {
		if info := w.info.Load(); info != nil {
			shown := *info
			if shown.Status == store.StatusStarting {
				shown.WaitingFor = w.startup.waitingFor()
			}
			infos = append(infos, shown)
		}
	}
	return infos
}

func (s *Supervisor) list() []*worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.workers
}

package placement

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/internal/systemd"
	"github.com/core-tools/hsu-master/supervisor/cgroup"
	"github.com/core-tools/hsu-master/supervisor/process"
)

const (
	// patience bounds how long a start waits for systemd, whose PID 1 may be busy or hang.
	patience = 2 * time.Second
	// retryAfter is the time without calls to systemd after one that failed.
	retryAfter = 10 * time.Second
	// freshness is how long the answer of systemd that the scope is active holds for starts that overlap.
	freshness = 100 * time.Millisecond
	// transition is the pause between two questions about a scope that is just ending.
	transition = 10 * time.Millisecond
)

// waiting is the cgroup of the pause process: processes in the scope's own one would keep it from limiting its
// children.
const waiting = "starting"

// errEnding means that the scope is being stopped: a process that enters it would be killed with those in it.
var errEnding = errors.New("still ending")

// errNoService means that this process is not the main process of a service: a shell in one has started it, say.
var errNoService = errors.New("not the main process of a service")

// scope is a transient scope of systemd for all workers of a master. It has no process of the service, so
// "systemctl kill", a restart, a reload and a stop of the service do not reach the workers. It ends by itself with its
// last process, or by "systemctl stop", and is then made again for the next start.
//
// A scope is made with a process in it, the pause process. It ends when the starts for which it was made are over: a
// worker is then in the scope, or the scope ends. It also ends if the master dies, so that no empty scope remains.
type scope struct {
	name, dir string
	log       *slog.Logger
	dial      func(context.Context) (manager, error)
	hold      func() (pauseProcess, error)

	// turn is held by the start that calls systemd, so that one scope is made for starts in parallel.
	turn chan struct{}

	mu       sync.Mutex
	useless  bool         // this process is no service
	ending   bool         // as systemd said when it was asked last
	starts   int          // that use the scope, and whose process is not in it yet
	holder   pauseProcess // nil if no start of these has made the scope
	verified time.Time    // when systemd said that the scope is active, or made it
	retry    time.Time    // no call to systemd before
	warned   bool         // since the last success
	service  string       // the name of this master's service, empty until systemd was asked
}

// manager is systemd, as [systemd.Bus] asks it.
type manager interface {
	OwnService(context.Context) (string, error)
	ActiveState(ctx context.Context, unit string) (string, error)
	StartScope(context.Context, systemd.Scope) error
	Close()
}

// pauseProcess is a [process.PauseProcess].
type pauseProcess interface {
	PID() int
	MoveTo(folder string) error
	Alive() bool
	Close() error
}

func newScope(masterID, dir string, log *slog.Logger) *scope {
	return &scope{
		name: scopeName(masterID), dir: dir, log: log, turn: make(chan struct{}, 1),
		dial: func(ctx context.Context) (manager, error) {
			bus, err := systemd.Dial(ctx)
			if err != nil {
				return nil, err
			}
			return bus, nil
		},
		hold: func() (pauseProcess, error) {
			p, err := process.StartPauseProcess()
			if err != nil {
				return nil, err
			}
			return p, nil
		},
	}
}

// make makes a cgroup in the scope, and reports whether there is one. The first warning of a series of failures is
// logged; a failure is never the reason for a worker not to start.
func (s *scope) make(name string) (folder string, placed func(), ok bool) {
	err := s.enter()
	if err == nil {
		if folder, err = cgroup.Create(s.dir, name); err == nil {
			s.succeeded()
			return folder, s.leave, true
		}
		s.leave()
	}
	s.failed(err)
	return "", nil, false
}

func (s *scope) succeeded() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.warned {
		s.log.Info("workers start in a scope again", "scope", s.name)
	}
	s.warned = false
}

func (s *scope) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.useless || s.warned {
		return
	}
	s.warned = true
	s.log.Warn("workers start in the service", "scope", s.name, "error", err,
		"next", "kill the master with systemctl kill --kill-whom=main only: without that option it kills these workers")
}

// enter returns when the scope exists, and is kept until leave.
func (s *scope) enter() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for another start: %w", ctx.Err())
	}
	defer func() { <-s.turn }()
	if known, err := s.join(); known {
		return err
	}
	holder, err := s.ensure(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.useless, s.ending = errors.Is(err, errNoService), errors.Is(err, errEnding)
		s.retry = time.Now().Add(retryAfter)
		if s.useless || s.ending || !s.populated() {
			return err
		}
		// Most probably it is the scope of the workers still, and the manager is busy.
	} else {
		s.ending, s.verified = false, time.Now()
	}
	if holder != nil {
		if s.holder != nil { // of a scope that has ended, and the pause process with it
			_ = s.holder.Close()
		}
		s.holder = holder
	}
	s.starts++
	return nil
}

// join uses the scope without a call to systemd, if that is possible or no call is due. known reports whether this
// decides the matter.
func (s *scope) join() (known bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.useless:
		return true, errNoService
	case s.starts > 0 && s.holder != nil && s.holder.Alive():
	case s.starts > 0 && time.Since(s.verified) < freshness && s.populated():
	case time.Now().Before(s.retry):
		if s.ending || !s.populated() {
			return true, errors.New("systemd has failed to make it, and is asked again later")
		}
	default:
		return false, nil
	}
	s.starts++
	return true, nil
}

// leave ends the use of the scope by a start that is over.
func (s *scope) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts--
	if s.starts > 0 {
		return
	}
	s.dismiss(s.holder)
	s.holder = nil
}

// dismiss ends a pause process, and removes its cgroup.
func (s *scope) dismiss(holder pauseProcess) {
	if holder == nil {
		return
	}
	err := holder.Close()
	// Without a worker the scope has ended, and systemd removes or has removed the folder.
	if gone := cgroup.Remove(filepath.Join(s.dir, waiting)); !Vanished(s.dir) {
		err = errors.Join(err, gone)
	}
	if err != nil {
		s.log.Debug("pause process not ended", "error", err)
	}
}

// populated reports whether a process is in the scope.
func (s *scope) populated() bool { return cgroup.Populated(s.dir) }

// ensure finds the scope active, or makes it, with a pause process in it.
func (s *scope) ensure(ctx context.Context) (pauseProcess, error) {
	m, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if s.service == "" {
		name, err := m.OwnService(ctx)
		if err == nil && name == "" {
			err = errNoService
		}
		if err != nil {
			return nil, err
		}
		s.service = name
	}
	last := ""
	for {
		state, err := m.ActiveState(ctx, s.name)
		switch {
		case err != nil && last != "":
			return nil, fmt.Errorf("%s was %s: %w: %w", s.name, last, errEnding, err)
		case err != nil:
			return nil, err
		case state == "inactive" || state == "failed":
			return s.begin(ctx, m)
		case state == "active" && s.populated():
			return nil, nil
		}
		// It is being stopped, or its last process has just ended.
		last = state
		select {
		case <-time.After(transition):
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is %s: %w: %w", s.name, state, errEnding, ctx.Err())
		}
	}
}

// begin makes the scope.
func (s *scope) begin(ctx context.Context, m manager) (_ pauseProcess, err error) {
	holder, err := s.hold()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.dismiss(holder)
		}
	}()
	if err := m.StartScope(ctx, systemd.Scope{
		Name: s.name, Description: "Workers of " + s.service, Slice: slice, Before: s.service, PID: holder.PID(),
	}); err != nil {
		return nil, err
	}
	folder, err := cgroup.Create(s.dir, waiting)
	if errors.Is(err, fs.ErrExist) { // of a master that was killed
		folder, err = filepath.Join(s.dir, waiting), nil
	}
	if err == nil {
		err = holder.MoveTo(folder)
	}
	return holder, err
}

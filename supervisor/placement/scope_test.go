package placement

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/internal/systemd"
)

// world is a systemd and the processes that it knows. Its scope is a folder.
type world struct {
	t   *testing.T
	dir string // of the scope

	mu      sync.Mutex
	state   string // of the scope; empty means inactive
	service string // of this process
	hangs   bool   // no call is answered
	fails   error  // of StartScope
	asked   int    // connections
	made    []systemd.Scope
	alive   int // pause processes
}

type held struct {
	w    *world
	pid  int
	gone bool
}

func (w *world) dial(ctx context.Context) (manager, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if w.hangs {
		w.mu.Unlock()
		<-ctx.Done()
		w.mu.Lock()
		return nil, ctx.Err()
	}
	return w, nil
}

func (w *world) OwnService(context.Context) (string, error) { return w.service, nil }

func (w *world) ActiveState(context.Context, string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state == "" {
		return "inactive", nil
	}
	return w.state, nil
}

func (w *world) StartScope(_ context.Context, s systemd.Scope) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fails != nil {
		return w.fails
	}
	w.made = append(w.made, s)
	w.state = "active"
	w.populate(true)
	return nil
}

func (w *world) Close() {}

// populate makes the folder of the scope, with or without a process in it.
func (w *world) populate(populated bool) {
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		w.t.Error(err)
	}
	text := "populated 0\nfrozen 0\n"
	if populated {
		text = "populated 1\nfrozen 0\n"
	}
	if err := os.WriteFile(filepath.Join(w.dir, "cgroup.events"), []byte(text), 0o644); err != nil {
		w.t.Error(err)
	}
}

// end ends the scope, as systemd does after its last process.
func (w *world) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = ""
	if err := os.RemoveAll(w.dir); err != nil {
		w.t.Error(err)
	}
}

func (w *world) hold() (pauseProcess, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alive++
	return &held{w: w, pid: 1000 + w.alive}, nil
}

func (h *held) PID() int                   { return h.pid }
func (h *held) Alive() bool                { return !h.gone }
func (h *held) MoveTo(folder string) error { _, err := os.Stat(folder); return err }

func (h *held) Close() error {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h.gone {
		h.w.t.Error("a pause process was closed twice")
	}
	h.gone = true
	h.w.alive--
	return nil
}

const testID = "3f2b"

func newWorld(t *testing.T) (w *world, s *scope, log *bytes.Buffer) {
	t.Helper()
	w = &world{t: t, dir: filepath.Join(t.TempDir(), scopeName(testID)), service: "hsu-master.service"}
	log = new(bytes.Buffer)
	s = newScope(testID, w.dir, slog.New(slog.NewTextHandler(log, nil)))
	s.dial, s.hold = w.dial, w.hold
	t.Cleanup(func() {
		if w.alive != 0 {
			t.Errorf("%d pause processes are left", w.alive)
		}
		if s.starts != 0 {
			t.Errorf("%d starts are counted, and all are over", s.starts)
		}
	})
	return w, s, log
}

// mustMake fails unless the cgroup is in the scope.
func mustMake(t *testing.T, s *scope, name string) (placed func()) {
	t.Helper()
	cgroup, placed, ok := s.make(name)
	if !ok {
		t.Fatalf("%s is not in the scope", name)
	}
	if info, err := os.Stat(cgroup); err != nil || !info.IsDir() || filepath.Dir(cgroup) != s.dir {
		t.Errorf("the cgroup of %s is %s: %v", name, cgroup, err)
	}
	return placed
}

func mustNotMake(t *testing.T, s *scope, name string) {
	t.Helper()
	if cgroup, placed, ok := s.make(name); ok {
		placed()
		t.Errorf("%s is in the scope, as %s", name, cgroup)
	}
}

func TestOneScopeForStartsInParallel(t *testing.T) {
	w, s, log := newWorld(t)
	var wg, made sync.WaitGroup
	made.Add(50)
	for i := range 50 {
		wg.Go(func() {
			placed := mustMake(t, s, fmt.Sprintf("worker-%d", i))
			defer placed()
			made.Done()
			made.Wait() // all are in it before one leaves
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.alive != 1 {
				t.Errorf("%d pause processes keep the scope", w.alive)
			}
		})
	}
	wg.Wait()
	if len(w.made) != 1 || w.asked != 1 {
		t.Fatalf("%d scopes were made over %d connections, want 1 over 1", len(w.made), w.asked)
	}
	want := systemd.Scope{
		Name: "hsu-workers-3f2b.scope", Description: "Workers of hsu-master.service", Slice: "hsu.slice",
		Before: "hsu-master.service", PID: 1001,
	}
	if w.made[0] != want {
		t.Errorf("the scope is %+v, want %+v", w.made[0], want)
	}
	if _, err := os.Stat(filepath.Join(w.dir, waiting)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cgroup of the pause process: %v", err)
	}
	if log.Len() > 0 {
		t.Errorf("logged: %s", log)
	}
	// The scope is kept by the workers now: no other pause process is needed, but systemd is asked.
	mustMake(t, s, "worker-50")()
	if len(w.made) != 1 || w.asked != 2 {
		t.Errorf("%d scopes were made over %d connections, want 1 over 2", len(w.made), w.asked)
	}
	w.end()
	mustMake(t, s, "worker-51")()
	if len(w.made) != 2 {
		t.Errorf("%d scopes were made, want another one after the end of the first", len(w.made))
	}
}

func TestStartWaitsForAManagerThatHangsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, log := newWorld(t)
		w.hangs = true
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() { mustNotMake(t, s, fmt.Sprintf("worker-%d", i)) })
		}
		wg.Wait()
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("the starts took %v, want 2 s", took)
		}
		began = time.Now()
		mustNotMake(t, s, "worker-10")
		if took := time.Since(began); took != 0 || w.asked != 1 {
			t.Errorf("the next start took %v, and systemd was asked %d times", took, w.asked)
		}
		n := strings.Count(log.String(), "level=WARN")
		if n != 1 || !strings.Contains(log.String(), "--kill-whom=main") {
			t.Errorf("%d warnings, want one with what follows: %s", n, log)
		}
		w.hangs = false
		time.Sleep(retryAfter)
		mustMake(t, s, "worker-11")()
		if !strings.Contains(log.String(), "workers start in a scope again") {
			t.Errorf("logged: %s", log)
		}
		// A later series of failures has a warning of its own.
		w.end()
		w.fails = errors.New("no")
		mustNotMake(t, s, "worker-12")
		if n := strings.Count(log.String(), "level=WARN"); n != 2 {
			t.Errorf("%d warnings, want 2: %s", n, log)
		}
	})
}

// The manager may be busy while workers are in the scope, which is used then.
func TestScopeThatIsInUseNeedsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, log := newWorld(t)
		w.populate(true)
		w.hangs = true
		mustMake(t, s, "worker-0")()
		began := time.Now()
		mustMake(t, s, "worker-1")()
		if took := time.Since(began); took != 0 || w.asked != 1 {
			t.Errorf("the next start took %v, and systemd was asked %d times", took, w.asked)
		}
		if log.Len() > 0 {
			t.Errorf("logged: %s", log)
		}
	})
}

// A worker that enters a scope that is being stopped would be killed with it.
func TestScopeThatEndsIsNotUsed(t *testing.T) {
	for _, state := range []string{"deactivating", "active"} { // systemd has not noticed yet that the second is empty
		t.Run(state, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, s, _ := newWorld(t)
				w.state = state
				w.populate(state == "deactivating")
				time.AfterFunc(time.Second, w.end)
				mustMake(t, s, "worker-0")()
				if len(w.made) != 1 {
					t.Errorf("%d scopes were made", len(w.made))
				}
			})
		})
	}
}

func TestScopeThatDoesNotEndIsNotAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s, log := newWorld(t)
		w.state = "deactivating" // a worker ignores SIGTERM
		w.populate(true)
		began := time.Now()
		mustNotMake(t, s, "worker-0")
		if took := time.Since(began); took != 2*time.Second || !strings.Contains(log.String(), "is deactivating") {
			t.Errorf("after %v: %s", took, log)
		}
		mustNotMake(t, s, "worker-1") // a start within 10 s does not wait, and must not enter it either
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("the second start ended after %v", took)
		}
		w.end()
		time.Sleep(retryAfter)
		mustMake(t, s, "worker-2")()
	})
}

// An operator stops the scope while starts are under way, and the pause process ends with it.
func TestPauseProcessThatWasEndedIsReplaced(t *testing.T) {
	w, s, _ := newWorld(t)
	first := mustMake(t, s, "worker-0")
	h := s.holder
	s.holder = &dead{h}
	w.end()
	second := mustMake(t, s, "worker-1")
	if len(w.made) != 2 {
		t.Errorf("%d scopes were made, want 2", len(w.made))
	}
	first()
	second()
}

type dead struct{ pauseProcess }

func (*dead) Alive() bool { return false }

func TestProcessThatIsNoServiceHasNoScope(t *testing.T) {
	w, s, log := newWorld(t)
	w.service = ""
	mustNotMake(t, s, "worker-0")
	mustNotMake(t, s, "worker-1")
	if w.asked != 1 || log.Len() > 0 {
		t.Errorf("asked %d times, logged: %s", w.asked, log)
	}
}

func TestFolderThatCannotBeMadeIsNoReasonNotToStart(t *testing.T) {
	_, s, log := newWorld(t)
	mustMake(t, s, "worker-0")()
	mustNotMake(t, s, "worker-0") // it exists
	if !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("logged: %s", log)
	}
}

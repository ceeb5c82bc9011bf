package reactions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
)

// fakeHistory is a history in memory.
type fakeHistory struct {
	mu      sync.Mutex
	entries []records.Entry
	grown   chan struct{}
}

func (h *fakeHistory) add(types ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, kind := range types {
		e := records.Entry{Seq: uint64(len(h.entries) + 1)}
		e.Type, e.Worker, _ = strings.Cut(kind, "@")
		h.entries = append(h.entries, e)
	}
	if h.grown != nil {
		close(h.grown)
		h.grown = nil
	}
}

func (h *fakeHistory) Events(after uint64, most int) ([]records.Entry, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	rest := h.entries[min(after, uint64(len(h.entries))):]
	return slices.Clone(rest[:min(len(rest), most)]), nil
}

func (h *fakeHistory) LastEvent() (uint64, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.grown == nil {
		h.grown = make(chan struct{})
	}
	return uint64(len(h.entries)), h.grown
}

// fakeRunner takes the time that the first argument of a command names, and notes its events.
type fakeRunner struct {
	mu      sync.Mutex
	ran     []string
	running map[string]bool // ids
	most    int
}

func (f *fakeRunner) Run(ctx context.Context, r Rule, id string, input []byte) (oneshot.Ran, error) {
	f.mu.Lock()
	if f.running[id] {
		f.ran = append(f.ran, "two commands with the id "+id)
	}
	if f.running == nil {
		f.running = map[string]bool{}
	}
	f.running[id] = true
	f.most = max(f.most, len(f.running))
	_, rest, _ := strings.Cut(string(input), `"seq":`)
	seq, _, _ := strings.Cut(rest, ",")
	f.ran = append(f.ran, r.Run[0]+" "+seq)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.running, id)
		f.mu.Unlock()
	}()
	if r.Run[0] == "missing" {
		return oneshot.Ran{}, errors.New("no such file")
	}
	long, err := time.ParseDuration(r.Run[1])
	if err != nil {
		return oneshot.Ran{}, err
	}
	select {
	case <-time.After(long):
		return oneshot.Ran{Exit: identity.Exit{Source: identity.ExitWait}}, nil
	case <-ctx.Done():
		return oneshot.Ran{Cut: true}, nil
	}
}

func (f *fakeRunner) noted() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.ran, ", ")
}

// serve runs a set in a bubble until the test function returns, and then finishes it.
func serve(t *testing.T, rules []Rule, do func(h *fakeHistory, f *fakeRunner, s *Set)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h, f := new(fakeHistory), new(fakeRunner)
		h.add("before") // the history of earlier masters
		s := New(h, f, slog.New(slog.DiscardHandler))
		s.Apply(rules...)
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Serve(t.Context(), 1)
		}()
		synctest.Wait()
		do(h, f, s)
		s.Finish()
		<-done
		if got := s.Figures(); got.Running != 0 || got.Queued != 0 {
			t.Errorf("after the end: %+v", got)
		}
	})
}

func TestCommandsRunForTheirEvents(t *testing.T) {
	serve(t, []Rule{
		{Types: []string{"failed", "memory"}, Run: []string{"a", "1s"}},
		{Units: []string{"web"}, Run: []string{"b", "1s"}},
	}, func(h *fakeHistory, f *fakeRunner, _ *Set) {
		h.add("failed@web-0", "running@web-1", "memory@db-0", "running@db-0")
		time.Sleep(time.Minute)
		if got := f.noted(); !sameRuns(got, "a 2", "a 4", "b 2", "b 3") {
			t.Errorf("%s, want a 2, a 4, b 2, b 3", got)
		}
	})
}

// sameRuns reports whether exactly these commands have run, those of each rule in this order.
func sameRuns(noted string, want ...string) bool {
	got := strings.Split(noted, ", ")
	slices.SortStableFunc(got, func(a, b string) int { return strings.Compare(a[:1], b[:1]) })
	return slices.Equal(got, want)
}

// A rule whose command hangs delays no other, loses the events that do not fit into its queue, and goes on.
func TestACommandThatHangsDelaysNoOther(t *testing.T) {
	const events = MaxQueued + 11
	serve(t, []Rule{
		{Types: []string{"x"}, Run: []string{"hangs", "1h"}, Timeout: time.Second},
		{Types: []string{"y"}, Run: []string{"quick", "1ms"}},
	}, func(h *fakeHistory, f *fakeRunner, s *Set) {
		h.add("x")
		synctest.Wait()
		h.add(slices.Repeat([]string{"x"}, events-1)...)
		h.add("y")
		synctest.Wait()
		if got, want := s.Figures(), (Figures{Rules: 2, Queued: MaxQueued, Running: 2, Dropped: 10}); got != want {
			t.Errorf("figures %+v, want %+v", got, want)
		}
		time.Sleep(10 * time.Millisecond)
		if got, want := f.noted(), fmt.Sprintf("quick %d", events+2); !strings.HasSuffix(got, want) {
			t.Errorf("%s, want the end %s", got, want)
		}
		time.Sleep((MaxQueued + 2) * time.Second)
		if got, want := s.Figures(), (Figures{Rules: 2, Failed: MaxQueued + 1, Dropped: 10}); got != want {
			t.Errorf("afterwards %+v, want %+v", got, want)
		}
		h.add("x")
		synctest.Wait()
		if got := s.Figures(); got.Running != 1 || got.Dropped != 10 {
			t.Errorf("the next event: %+v", got)
		}
	})
}

func TestTheNumberOfCommandsIsBounded(t *testing.T) {
	var rules []Rule
	for i := range 3 * MaxRunning {
		rules = append(rules, Rule{Run: []string{fmt.Sprint("rule", i), "1s"}})
	}
	serve(t, rules, func(h *fakeHistory, f *fakeRunner, _ *Set) {
		h.add("x", "x")
		time.Sleep(time.Minute)
		if n := len(strings.Split(f.noted(), ", ")); n != 2*len(rules) || f.most != MaxRunning {
			t.Errorf("%d commands have run, at most %d at a time, want %d and %d", n, f.most, 2*len(rules), MaxRunning)
		}
	})
}

func TestFailuresAreCounted(t *testing.T) {
	serve(t, []Rule{{Run: []string{"missing"}}}, func(h *fakeHistory, _ *fakeRunner, s *Set) {
		h.add("x", "y")
		synctest.Wait()
		if got, want := s.Figures(), (Figures{Rules: 1, Failed: 2}); got != want {
			t.Errorf("figures %+v, want %+v", got, want)
		}
	})
}

// A reload keeps what waits for an unchanged rule, and forgets what waits for another.
func TestApplyChangesTheRules(t *testing.T) {
	kept, removed := Rule{Run: []string{"kept", "1s"}}, Rule{Run: []string{"removed", "1s"}}
	added := Rule{Run: []string{"added", "1s"}}
	serve(t, []Rule{removed, kept}, func(h *fakeHistory, f *fakeRunner, s *Set) {
		h.add("x", "x")
		synctest.Wait()
		s.Apply(kept, added)
		h.add("x")
		time.Sleep(time.Minute)
		got := strings.Split(f.noted(), ", ")
		slices.Sort(got)
		want := []string{"added 4", "kept 2", "kept 3", "kept 4", "removed 2"}
		if !slices.Equal(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// A master that stops runs the commands of its last events.
func TestFinishRunsTheRest(t *testing.T) {
	var runner *fakeRunner
	serve(t, []Rule{{Run: []string{"a", "1s"}}}, func(h *fakeHistory, f *fakeRunner, _ *Set) {
		runner = f
		h.add("x", "y", "z")
	})
	if got, want := runner.noted(), "a 2, a 3, a 4"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// The end of the context ends what runs, and nothing else is started.
func TestTheContextEndsCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, f := new(fakeHistory), new(fakeRunner)
		s := New(h, f, slog.New(slog.DiscardHandler))
		s.Apply(Rule{Run: []string{"a", "1h"}, Timeout: math.MaxInt64})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Serve(ctx, 0)
		}()
		h.add("x", "y")
		synctest.Wait()
		cancel()
		<-done
		if got := f.noted(); got != "a 1" {
			t.Errorf("%s, want a 1", got)
		}
	})
}

// A program that embeds a master makes its rules itself.
func TestRuleWithoutAProgramFails(t *testing.T) {
	if _, err := (Processes{}).Run(t.Context(), Rule{}, "event-0", nil); !errors.Is(err, errNoProgram) {
		t.Errorf("the error is %v, want %v", err, errNoProgram)
	}
}

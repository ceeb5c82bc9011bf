// Package reactions runs the commands of "on_event" with the events of the history on their standard input.
//
// A rule runs its commands one at a time, in the order of its events, and at most [MaxRunning] run at a time. If a rule
// has [MaxQueued] events to go, further ones are dropped and counted. So a command that hangs, fails or floods delays
// neither a worker nor the master, and no command of another rule for long.
//
// Each event is passed at most once. An event that was recorded by a master that has crashed since, and the events in
// the queues of a master that crashes, get no command: a command that keeps the last number notices
// the gap. The run of a command is no event, so none is the cause of itself.
package reactions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/history"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
)

const (
	// MaxRunning is the number of commands that run at a time.
	MaxRunning = 4
	// MaxQueued is the number of events that wait for a command of one rule.
	MaxQueued = 100

	defaultTimeout = 10 * time.Second
)

// Rule is one element of "on_event".
type Rule struct {
	Types []string // of events; empty means all
	Units []string // whose events, with those of their workers; empty means all
	// Run is the program and its arguments. A program without a slash is looked up in PATH.
	Run     []string
	Dir     string        // the command's working folder
	User    string        // "" means that of the master
	Timeout time.Duration // after which the command is killed with its family; 0 means 10 s
}

func (r Rule) matches(e records.Entry) bool {
	return history.Query{Names: r.Units, Types: r.Types}.Match(e)
}

// Runner runs the command of a rule, which has the input on its standard input, until it has ended or ctx ends. Then
// all of its family is gone. id is of no other command that runs.
type Runner interface {
	Run(ctx context.Context, r Rule, id string, input []byte) (oneshot.Ran, error)
}

// Figures are the numbers of the events and commands so far.
type Figures struct {
	Rules, Queued, Running int
	Failed, Dropped        uint64 // since the start of the master
}

// Set runs the commands of the present rules. Its methods may be called concurrently.
type Set struct {
	source history.Source
	runner Runner
	log    *slog.Logger

	slots     chan int // the numbers of the commands that may run now
	finishing chan struct{}
	finish    sync.Once
	busy      sync.WaitGroup // goroutines of queues

	mu      sync.Mutex
	queues  []*queue
	figures Figures // without those that follow from queues
}

// queue is the events of one rule that wait.
type queue struct {
	rule     Rule
	waiting  []records.Entry
	active   bool // a goroutine runs the commands
	dropping bool // the last event was dropped
}

// New returns a set without rules.
func New(source history.Source, runner Runner, log *slog.Logger) *Set {
	s := &Set{
		source: source, runner: runner, log: log,
		slots: make(chan int, MaxRunning), finishing: make(chan struct{}),
	}
	for slot := range MaxRunning {
		s.slots <- slot
	}
	return s
}

// ID returns the id of the command that runs in a slot, below [MaxRunning].
func ID(slot int) string { return "on_event/" + strconv.Itoa(slot) }

// Apply makes these the rules. The events that wait for an unchanged rule still do, those of others are forgotten. What
// runs goes on.
func (s *Set) Apply(rules ...Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.queues
	s.queues = nil
	for _, r := range rules {
		at := slices.IndexFunc(before, func(q *queue) bool { return reflect.DeepEqual(q.rule, r) })
		if at < 0 {
			s.queues = append(s.queues, &queue{rule: r})
			continue
		}
		s.queues = append(s.queues, before[at])
		before = slices.Delete(slices.Clone(before), at, at+1)
	}
	for _, q := range before {
		q.waiting = nil
	}
}

// Rules returns the present rules.
func (s *Set) Rules() (rules []Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.queues {
		rules = append(rules, q.rule)
	}
	return rules
}

// Serve runs commands for the events with numbers above after, until ctx ends, which also ends what runs. After a call
// of Finish it returns when the commands of all recorded events have ended.
func (s *Set) Serve(ctx context.Context, after uint64) {
	defer s.busy.Wait()
	following, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-s.finishing:
			stop()
		case <-following.Done():
		}
	}()
	each := func(entries []records.Entry, _ uint64) error {
		for _, e := range entries {
			s.offer(ctx, e)
			after = e.Seq
		}
		return nil
	}
	if err := history.Follow(following, s.source, after, each); following.Err() == nil {
		s.log.Error("event commands stopped", "error", err)
		return
	}
	if ctx.Err() == nil {
		rest, err := s.source.Events(after, math.MaxInt)
		if err != nil {
			s.log.Warn("last events not read", "error", err)
		}
		_ = each(rest, 0)
	}
}

// Finish lets Serve return after the commands of the recorded events.
func (s *Set) Finish() { s.finish.Do(func() { close(s.finishing) }) }

// Figures returns the counts of commands and dropped events.
func (s *Set) Figures() Figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.figures
	f.Rules = len(s.queues)
	for _, q := range s.queues {
		f.Queued += len(q.waiting)
	}
	return f
}

// offer adds the event to the queues of the rules that it matches. It does not block.
func (s *Set) offer(ctx context.Context, e records.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.queues {
		if !q.rule.matches(e) {
			continue
		}
		if len(q.waiting) >= MaxQueued {
			s.figures.Dropped++
			if !q.dropping {
				q.dropping = true
				s.log.Warn("events dropped", "command", q.rule.Run[0], "seq", e.Seq)
			}
			continue
		}
		q.dropping = false
		q.waiting = append(q.waiting, e)
		if !q.active {
			q.active = true
			s.busy.Go(func() { s.work(ctx, q) })
		}
	}
}

// work runs commands until no event waits.
func (s *Set) work(ctx context.Context, q *queue) {
	for {
		var slot int
		select {
		case slot = <-s.slots:
		case <-ctx.Done():
		}
		e, found := s.next(ctx, q)
		if !found {
			if ctx.Err() == nil {
				s.slots <- slot
			}
			return
		}
		s.run(ctx, q.rule, ID(slot), e)
		s.slots <- slot
		s.mu.Lock()
		s.figures.Running--
		s.mu.Unlock()
	}
}

// next takes the next event, if there is one and ctx has not ended.
func (s *Set) next(ctx context.Context, q *queue) (e records.Entry, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil || len(q.waiting) == 0 {
		q.active = false
		return e, false
	}
	e, q.waiting = q.waiting[0], q.waiting[1:]
	s.figures.Running++
	return e, true
}

// run runs the command for an event, and logs its end.
func (s *Set) run(ctx context.Context, r Rule, id string, e records.Entry) {
	input, err := history.JSON(e)
	var ran oneshot.Ran
	if err == nil {
		limit := cmp.Or(r.Timeout, defaultTimeout)
		bounded, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not end within %s", limit))
		ran, err = s.runner.Run(bounded, r, id, input)
		switch {
		case err != nil:
		case ran.Cut:
			err = context.Cause(bounded)
		case !ran.Exit.Clean():
			err = errors.New(ran.Exit.String())
		}
		cancel()
	}
	if err == nil {
		s.log.DebugContext(ctx, "event command ended",
			"command", r.Run[0], "event", e.Type, "seq", e.Seq, "output", string(ran.Output))
		return
	}
	s.mu.Lock()
	s.figures.Failed++
	s.mu.Unlock()
	s.log.WarnContext(ctx, "event command failed",
		"command", r.Run[0], "event", e.Type, "seq", e.Seq, "output", string(ran.Output), "error", err)
}

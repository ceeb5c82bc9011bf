package unmanaged

import (
	"context"
	"slices"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// target is a found process. [process.Process] is one.
type target interface {
	Identity() identity.Process
	Done() <-chan struct{}
	Exit() identity.Exit
	Stopped() bool
	Matches(p process.Pattern) error
	Signal(sig syscall.Signal) error
	Close() error
}

// finding is the result of a search for one unit.
type finding struct {
	target  target // nil if err is set
	name    string
	started time.Time
	err     error
}

func discover(ctx context.Context, own process.Own, queries []process.Query) []finding {
	findings := make([]finding, len(queries))
	for i, d := range process.Discover(ctx, own, queries) {
		findings[i] = finding{name: d.Name, started: d.Started, err: d.Err}
		if d.Err == nil {
			findings[i].target = d.Process
		}
	}
	return findings
}

// Times of the search. One search serves all units without a process, and reads the list of all processes once.
const (
	firstDelay = time.Second // after something has changed
	maxDelay   = 8 * time.Second
	// stable is how long a process is watched before its end is reason to search at once. So a process that its own
	// supervisor starts again and again is not found at each of its starts.
	stable = 10 * time.Second
)

// search searches for the processes of all units that have none, if that is due. It returns when the next search is
// due, zero if there is nothing to search for.
func (s *Set) search(ctx context.Context) time.Time {
	missing, queries := s.missing()
	if len(missing) == 0 {
		return time.Time{}
	}
	s.mu.Lock()
	due := s.searched.Add(s.delay)
	soon := s.delay == 0
	if soon {
		s.delay = firstDelay
	}
	s.mu.Unlock()
	if !soon && time.Now().Before(due) {
		return due
	}
	own := s.opts.Own()
	own.MainPID = s.opts.mainPID
	findings := s.opts.discover(ctx, own, queries)
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil {
		for i, f := range findings {
			s.apply(missing[i], queries[i], f)
		}
	} else {
		discard(findings)
	}
	s.searched = time.Now()
	if s.delay == 0 {
		return s.searched
	}
	due = s.searched.Add(s.delay)
	if !soon {
		due = s.searched.Add(min(2*s.delay, maxDelay))
		s.delay = min(2*s.delay, maxDelay)
	}
	return due
}

func discard(findings []finding) {
	for _, f := range findings {
		if f.target != nil {
			_ = f.target.Close()
		}
	}
}

// missing returns the units without a process and what to search for.
func (s *Set) missing() (missing []*item, queries []process.Query) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.items {
		if x.watch == nil && x.free() {
			missing = append(missing, x)
			queries = append(queries, process.Query{Pattern: x.unit.Discover, Last: s.last(x)})
		}
	}
	return missing, queries
}

// apply applies the result of a search. The caller holds s.mu.
func (s *Set) apply(x *item, q process.Query, f finding) {
	if x.watch != nil || !s.has(x) || !x.unit.Discover.Equal(q.Pattern) {
		discard([]finding{f}) // changed meanwhile
		return
	}
	if f.err != nil {
		s.step(x, event{kind: evMissing, reason: process.ReasonOf(f.err)})
		return
	}
	s.step(x, event{kind: evFound, found: &records.Found{
		Process: f.target.Identity(), Name: f.name, Started: f.started,
	}})
	x.watch = &watch{set: s, item: x, target: f.target, since: time.Now()}
	x.watch.start()
}

func (s *Set) has(x *item) bool { return slices.Contains(s.items, x) }

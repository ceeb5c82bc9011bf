//go:build e2e && linux

package operate

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// callers is the number of callers during each change.
const callers = 64

// No change that an operator makes loses a call, or refuses a connection.
func TestChangesLoseNoCall(t *testing.T) {
	t.Parallel()
	for _, a := range acts {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, a.replicas, a.order, a.steps[0].detaches)
			calls, refused := s.StartCallers(callers, harness.Once), s.CountRefused()
			for range harness.Times(2) {
				for _, step := range a.steps {
					calls.AwaitMore(callers)
					s.perform(step)
					calls.AwaitMore(callers)
					calls.WantNoFailures()
				}
			}
			calls.Stop()
			calls.WantNoFailures()
			s.wantNoneRefused(refused)
			s.wantCounted(calls)
			t.Logf("%d calls, the longest took %s", calls.Acked.Load(), calls.Longest().Round(time.Millisecond))
			s.end()
		})
	}
}

// A master that is killed at a random moment of a change is followed by one that completes the change, if it was
// recorded. Only the calls in flight at the kill end, and those that are repeated with an id are counted once.
//
//	SEED=             of the moments; if it is not set, one is generated and printed
//	HSU_E2E_TIMES=    how often each change is cut off
func TestKilledChangesAreCompletedOrUndone(t *testing.T) {
	t.Parallel()
	for i, a := range acts {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed(t), uint64(i)))
			s := newSite(t, a.replicas, a.order, true)
			repeated, once := s.StartCallers(callers/2, harness.WithID), s.StartCallers(callers/2, harness.Echo)
			refused := s.CountRefused()
			lost, recorded, kills := 0, 0, 0
			took := make([]time.Duration, len(a.steps))
			for i, step := range a.steps {
				took[i] = s.perform(step)
				once.WantNoFailures()
			}
			for range harness.Times(1) {
				for i, step := range a.steps {
					repeated.AwaitMore(callers)
					once.AwaitMore(callers)
					isRecorded := s.cutOff(step, time.Duration(random.Int64N(int64(took[i]))))
					repeated.AwaitMore(callers)
					once.AwaitMore(callers)
					lost += once.WantLostByKill()
					kills++
					if isRecorded {
						recorded++
					}
				}
			}
			repeated.Stop()
			once.Stop()
			repeated.WantNoFailures()
			once.WantNoFailures()
			s.wantNoneRefused(refused)
			s.wantCounted(repeated)
			t.Logf("%d kills, %d of recorded changes; %d + %d calls, %d lost in flight; the longest took %s",
				kills, recorded, repeated.Acked.Load(), once.Acked.Load(), lost,
				repeated.Longest().Round(time.Millisecond))
			s.end()
		})
	}
}

func seed(t *testing.T) uint64 {
	n, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
	if err != nil {
		n = rand.Uint64N(1 << 32)
	}
	t.Logf("SEED=%d", n)
	return n
}

// perform has a step made, and returns how long its command took.
func (s *site) perform(t step) time.Duration {
	s.T.Helper()
	before, last := s.prepare(t)
	began := time.Now()
	r := s.CLI(t.command...)
	took := time.Since(began)
	if r.Code != t.code {
		s.T.Fatalf("%q: %+v, want exit code %d", t.command, r, t.code)
	}
	if t.detaches {
		s.master.WantExit(0)
		s.master = s.Start()
	}
	s.killed = false
	if !s.awaitOutcome(t, before, last) {
		s.T.Errorf("%q has recorded no %q", t.command, t.record)
	}
	return took
}

// cutOff kills the master a while after a step has begun, and starts another.
func (s *site) cutOff(t step, after time.Duration) (recorded bool) {
	s.T.Helper()
	before, last := s.prepare(t)
	var r harness.Result
	var over sync.WaitGroup
	over.Go(func() { r = s.CLI(t.command...) })
	time.Sleep(after) // the moment is the case
	s.master.Kill()
	if t.detaches {
		over.Wait() // it is not for the next master
	}
	s.master = s.Start()
	over.Wait()
	s.killed = true
	recorded = s.awaitOutcome(t, before, last)
	if r.Code == 0 && !recorded {
		s.T.Errorf("%q has recorded no %q: %+v", t.command, t.record, r)
	}
	return recorded
}

// prepare does the operator's work before a step, and returns the workers and the number of the last event.
func (s *site) prepare(t step) (before harness.Dump, last uint64) {
	s.T.Helper()
	before, last = s.Dump(), s.lastEvent()
	if t.prepare != nil {
		t.prepare(s)
	}
	return before, last
}

// awaitOutcome returns when a change is made if it was recorded after that event, and undone else.
func (s *site) awaitOutcome(t step, before harness.Dump, last uint64) (recorded bool) {
	s.T.Helper()
	var d harness.Dump
	harness.WaitFor(s.T, fmt.Sprintf("%q is completed or undone", t.command), func() (err error) {
		if d, err = s.TryDump(); err != nil {
			return err
		}
		recorded = t.record == "" || slices.ContainsFunc(s.events(last), func(e event) bool {
			return e.Type == t.record
		})
		if recorded {
			return t.made(s, before, d)
		}
		return t.unmade(s, before, d)
	})
	leaders := s.Leaders()
	for _, w := range d.Workers {
		if pids := leaders[w.ID]; w.Running() && !slices.Equal(pids, []int{w.PID}) || len(pids) > 1 {
			s.T.Errorf("%s is process %d in the dump, and %v in /proc", w.ID, w.PID, pids)
		}
		delete(leaders, w.ID)
	}
	if len(leaders) > 0 {
		s.T.Errorf("processes that the dump does not name: %v", leaders)
	}
	return recorded
}

func (s *site) wantNoneRefused(refused func() int) {
	s.T.Helper()
	if n := refused(); n > 0 {
		s.T.Errorf("%d connections were refused", n)
	}
}

// wantCounted checks the number of processed requests, of callers that have stopped.
func (s *site) wantCounted(calls *harness.Callers) {
	s.T.Helper()
	if got, want := s.Dump().ProcessedCount, calls.Acked.Load(); got != want {
		s.T.Errorf("%d requests are counted, want %d", got, want)
	}
}

package lifecycle

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

var testPolicy = PolicyOf(unit.Spec{}.WithDefaults())

// TestNextEveryStateAndEvent covers every pair: a pair that is not listed must change nothing and lead to no
// action.
func TestNextEveryStateAndEvent(t *testing.T) {
	now := time.Hour
	waiting := records.RestartHistory{RetryAt: now + time.Second}
	failed := records.RestartHistory{RetryAt: now + time.Minute, FailedWait: 5 * time.Minute}
	due := func(h records.RestartHistory) records.RestartHistory {
		h.RetryAt = now
		return h
	}
	states := map[string]State{
		"new":      {Wanted: true},
		"starting": {Wanted: true, Status: records.StatusStarting},
		"started":  {Wanted: true, Status: records.StatusStarting, Slot: Occupied},
		"running": {
			Wanted: true, Status: records.StatusRunning, Slot: Occupied, Ready: true,
			History: records.RestartHistory{ReadySince: now - 5*time.Second},
		},
		"unhealthy":   {Wanted: true, Status: records.StatusUnhealthy, Slot: Occupied, failures: testPolicy.missed},
		"stopping":    {Wanted: true, Status: records.StatusStopping, Slot: terminating, Reason: "ill"},
		"backoff":     {Wanted: true, Status: records.StatusBackoff, History: waiting},
		"failed":      {Wanted: true, Status: records.StatusFailed, History: failed},
		"given up":    {Wanted: true, Status: records.StatusFailed},
		"completed":   {Wanted: true, Status: records.StatusCompleted},
		"waiting":     {Wanted: true, Status: records.StatusWaiting, Reason: "db: db-0 is starting"},
		"stopped":     {Wanted: true, Status: records.StatusStopped},
		"unwanted":    {Status: records.StatusStopped},
		"quitting":    {Wanted: true, Status: records.StatusStopping, Slot: terminating, quitting: true},
		"retired":     {Status: records.StatusStopping, Slot: terminating, Retired: true},
		"recovered":   {Wanted: true, Status: records.StatusRunning},                 // recorded running, not found yet
		"interrupted": {Wanted: true, Status: records.StatusStopping, Reason: "ill"}, // recorded, not found yet

		"held":          {Wanted: true, Status: records.StatusRunning, Slot: unverified, Reason: "held: why"},
		"held failed":   {Wanted: true, Status: records.StatusFailed, Slot: unverified, Reason: "held: why"},
		"dying":         {Wanted: true, Status: records.StatusRunning, Slot: terminating},
		"dying start":   {Wanted: true, Status: records.StatusStarting, Slot: terminating},
		"remaining":     {Wanted: true, Status: records.StatusUnhealthy, Slot: remaining, Reason: "held: why"},
		"remaining ill": {Wanted: true, Status: records.StatusStopping, Slot: remaining, Reason: "ill"},
		"due":           {Wanted: true, Status: records.StatusBackoff, History: due(waiting)},
		"failed due":    {Wanted: true, Status: records.StatusFailed, History: due(failed)},
	}
	// state, event → status, action
	want := map[string]string{
		"new begin":         "starting start",
		"starting begin":    "starting start",
		"recovered begin":   "starting start",
		"interrupted begin": "starting start",
		"stopped begin":     "starting start",
		"backoff begin":     "backoff back off",
		"failed begin":      "failed back off",
		"given up begin":    "failed back off", // by a policy that has changed since
		"held failed begin": "failed back off",
		"unwanted begin":    "stopped none",

		"new adopted":         "running serve",
		"starting adopted":    "running serve",
		"recovered adopted":   "running serve",
		"backoff adopted":     "running serve",
		"failed adopted":      "running serve",
		"given up adopted":    "running serve",
		"completed adopted":   "running serve",
		"stopped adopted":     "running serve",
		"interrupted adopted": "stopping stop",
		"unwanted adopted":    "stopping stop",

		"new adopted silent":         "unhealthy unpublish",
		"starting adopted silent":    "starting await",
		"recovered adopted silent":   "unhealthy unpublish",
		"backoff adopted silent":     "unhealthy unpublish",
		"failed adopted silent":      "unhealthy unpublish",
		"given up adopted silent":    "unhealthy unpublish",
		"completed adopted silent":   "unhealthy unpublish",
		"stopped adopted silent":     "unhealthy unpublish",
		"interrupted adopted silent": "stopping stop",
		"unwanted adopted silent":    "stopping stop",

		"started ready": "running serve",

		"started not ready": "stopping stop",

		"starting start failed": "backoff back off",

		"unhealthy pong": "running serve",

		"running lost": "running unpublish",

		"unhealthy silent":    "stopping stop",
		"running stranger":    "unhealthy unpublish",
		"unhealthy stranger":  "stopping stop",
		"running suspended":   "unhealthy unpublish",
		"unhealthy suspended": "unhealthy unpublish",

		"new exited":         "backoff back off",
		"starting exited":    "backoff back off",
		"started exited":     "backoff back off",
		"running exited":     "backoff back off",
		"recovered exited":   "backoff back off",
		"unhealthy exited":   "backoff back off",
		"stopping exited":    "backoff back off",
		"interrupted exited": "backoff back off",
		"backoff exited":     "backoff back off",
		"failed exited":      "backoff back off",
		"given up exited":    "backoff back off",
		"completed exited":   "backoff back off",
		"stopped exited":     "backoff back off",
		"unwanted exited":    "stopped none",
		"quitting exited":    "stopped finish",
		"retired exited":     "stopped finish",

		"backoff retry":    "backoff back off", // a look at a wait that is not over
		"failed retry":     "failed back off",
		"due retry":        "starting start",
		"failed due retry": "starting start",

		"started replace":       "stopping stop",
		"running replace":       "stopping stop",
		"unhealthy replace":     "stopping stop",
		"stopping replace":      "stopping none",
		"dying replace":         "stopping none",
		"dying start replace":   "stopping none",
		"remaining replace":     "stopping none",
		"remaining ill replace": "stopping none",
		"held replace":          "stopping none",
		"held failed replace":   "stopping none",
		"new replace":           "starting start",
		"recovered replace":     "starting start",
		"interrupted replace":   "starting start",
		"backoff replace":       "starting start",
		"failed replace":        "starting start",
		"given up replace":      "starting start",
		"completed replace":     "starting start",
		"stopped replace":       "starting start",

		"new retire":         " finish",
		"starting retire":    "starting finish",
		"started retire":     "stopping stop",
		"running retire":     "stopping stop",
		"recovered retire":   "running finish",
		"unhealthy retire":   "stopping stop",
		"interrupted retire": "stopping finish",
		"backoff retire":     "backoff finish",
		"failed retire":      "failed finish",
		"given up retire":    "failed finish",
		"completed retire":   "completed finish",
		"stopped retire":     "stopped finish",
		"unwanted retire":    "stopped finish",

		"new shutdown":         " finish",
		"starting shutdown":    "stopped finish",
		"started shutdown":     "stopping stop",
		"running shutdown":     "stopping stop",
		"recovered shutdown":   "running finish",
		"unhealthy shutdown":   "stopping stop",
		"stopping shutdown":    "stopping none",
		"interrupted shutdown": "stopping finish",
		"backoff shutdown":     "backoff finish",
		"failed shutdown":      "failed finish",
		"given up shutdown":    "failed finish",
		"completed shutdown":   "completed finish",
		"stopped shutdown":     "stopped finish",
		"unwanted shutdown":    "stopped finish",
		"quitting shutdown":    "stopping none",
		"retired shutdown":     "stopping none",

		"held begin":          "starting start",
		"held adopted":        "running serve",
		"held adopted silent": "unhealthy unpublish",
		"held exited":         "backoff back off",
		"held retry":          "running recover",
		"held shutdown":       "running finish",

		"held failed adopted":        "running serve",
		"held failed adopted silent": "unhealthy unpublish",
		"held failed exited":         "backoff back off",
		"held failed retry":          "failed recover",
		"held failed shutdown":       "failed finish",

		"new found dead":         " kill",
		"starting found dead":    "starting kill",
		"recovered found dead":   "running kill",
		"interrupted found dead": "stopping kill",
		"backoff found dead":     "backoff kill",
		"failed found dead":      "failed kill",
		"given up found dead":    "failed kill",
		"completed found dead":   "completed kill",
		"stopped found dead":     "stopped kill",
		"unwanted found dead":    "stopped kill",
		"held found dead":        "running kill",
		"held failed found dead": "failed kill",

		"new unverifiable":         " recheck",
		"starting unverifiable":    "starting recheck",
		"recovered unverifiable":   "running recheck",
		"interrupted unverifiable": "stopping recheck",
		"backoff unverifiable":     "backoff recheck",
		"failed unverifiable":      "failed recheck",
		"given up unverifiable":    "failed recheck",
		"completed unverifiable":   "completed recheck",
		"stopped unverifiable":     "stopped recheck",
		"unwanted unverifiable":    "stopped recheck",
		"held unverifiable":        "running recheck",
		"held failed unverifiable": "failed recheck",

		"starting forked": "starting await",

		"started died":   "starting kill",
		"running died":   "running kill",
		"unhealthy died": "unhealthy kill",

		"dying remains":       "unhealthy recheck",
		"dying start remains": "unhealthy recheck",
		"stopping remains":    "stopping recheck",
		"retired remains":     "stopping recheck",
		"quitting remains":    "stopping abandon",

		"dying exited":         "backoff back off",
		"dying start exited":   "backoff back off",
		"remaining exited":     "backoff back off",
		"remaining ill exited": "backoff back off",

		"remaining retry":     "unhealthy kill",
		"remaining ill retry": "stopping kill",

		"remaining shutdown": "stopping stop",

		"waiting begin":          "starting start",
		"waiting adopted":        "running serve",
		"waiting adopted silent": "unhealthy unpublish",
		"waiting found dead":     "waiting kill",
		"waiting unverifiable":   "waiting recheck",
		"waiting exited":         "backoff back off",
		"waiting unblocked":      "starting start",
		"waiting replace":        "starting start",
		"waiting retire":         "waiting finish",
		"waiting shutdown":       "waiting finish",

		// A worker that lives goes on until EvShutdown.
		"new closing":         " finish",
		"starting closing":    "stopped finish",
		"recovered closing":   "running finish",
		"interrupted closing": "stopping finish",
		"backoff closing":     "backoff finish",
		"failed closing":      "failed finish",
		"given up closing":    "failed finish",
		"completed closing":   "completed finish",
		"stopped closing":     "stopped finish",
		"unwanted closing":    "stopped finish",
		"waiting closing":     "waiting finish",
		"due closing":         "backoff finish",
		"failed due closing":  "failed finish",
		"held closing":        "running finish",
		"held failed closing": "failed finish",
		"due begin":           "starting start",
		"due adopted":         "running serve",
		"due adopted silent":  "unhealthy unpublish",
		"due found dead":      "backoff kill",
		"due unverifiable":    "backoff recheck",
		"due exited":          "backoff back off",
		"due replace":         "starting start",
		"due retire":          "backoff finish",
		"due shutdown":        "backoff finish",
		"failed due begin":    "starting start",
		"failed due adopted":  "running serve",
		"failed due exited":   "backoff back off",
		"failed due replace":  "starting start",
		"failed due retire":   "failed finish",
		"failed due shutdown": "failed finish",

		"failed due adopted silent": "unhealthy unpublish",
		"failed due found dead":     "failed kill",
		"failed due unverifiable":   "failed recheck",

		"running memory":   "stopping stop",
		"unhealthy memory": "stopping stop",
	}
	for name, s := range states {
		for kind := range EvMemory + 1 {
			pair := name + " " + kind.String()
			got, act := Next(s, Event{Kind: kind, Reason: "why"}, testPolicy, now)
			expected, listed := want[pair]
			if !listed {
				expected = string(s.Status) + " none"
			}
			if result := string(got.Status) + " " + act.String(); result != expected {
				t.Errorf("%s: got %q, want %q", pair, result, expected)
			}
			if got.Ready && (got.Slot != Occupied || got.Status != records.StatusRunning) && s.alive() {
				t.Errorf("%s: ready without being occupied and running: %+v", pair, got)
			}
			if act == ActStart && (s.Slot != Vacant && s.Slot != unverified && kind != EvExited || !got.Wanted) {
				t.Errorf("%s: starts a twin, or what nobody wants: %+v", pair, got)
			}
			delete(want, pair)
		}
	}
	for pair := range want {
		t.Errorf("%q is expected, but there is no such pair", pair)
	}
	wantBlockedStartsToWait(t, states, now)
}

// wantBlockedStartsToWait checks, for every pair, that a worker whose dependencies are not met waits in place of each
// start, at no cost, and that nothing else depends on them.
func wantBlockedStartsToWait(t *testing.T, states map[string]State, now time.Duration) {
	t.Helper()
	waits := 0
	for name, s := range states {
		for kind := range EvMemory + 1 {
			free, freeAct := Next(s, Event{Kind: kind, Reason: "why"}, testPolicy, now)
			got, act := Next(s, Event{Kind: kind, Reason: "why", Blocked: "db"}, testPolicy, now)
			want, wantAct := free, freeAct
			if freeAct == ActStart {
				waits++
				want.Status, want.Reason, wantAct = records.StatusWaiting, "db", ActNone
			}
			if act != wantAct || !reflect.DeepEqual(got, want) {
				t.Errorf("%s %s, blocked: got %v %+v, want %v %+v", name, kind, act, got, wantAct, want)
			}
		}
	}
	if waits == 0 {
		t.Error("no pair leads to a start")
	}
}

func TestClosingWorkerLivesUntilItsShutdownAndIsNotRestarted(t *testing.T) {
	s := State{Wanted: true, Status: records.StatusRunning, Slot: Occupied, Ready: true}
	s, act := Next(s, Event{Kind: EvClosing}, testPolicy, time.Hour)
	if act != ActNone || !s.Ready {
		t.Errorf("closing: action %v, state %+v, want it to go on", act, s)
	}
	ended, act := Next(s, Event{Kind: EvExited, Reason: "crash"}, testPolicy, time.Hour)
	if act != ActFinish || ended.Status != records.StatusStopped {
		t.Errorf("its crash: action %v, state %+v, want no restart", act, ended)
	}
	s, act = Next(s, Event{Kind: EvShutdown}, testPolicy, time.Hour)
	if act != ActStop || s.Status != records.StatusStopping {
		t.Errorf("shutdown: action %v, state %+v, want it stopped", act, s)
	}
}

func (k EventKind) String() string {
	return [...]string{
		"begin", "adopted", "adopted silent", "found dead", "unverifiable", "forked", "start failed", "ready",
		"not ready",
		"pong", "silent", "alive", "serving", "not serving", "lost", "stranger", "suspended", "died", "remains",
		"exited", "retry", "unblocked", "steady", "window passed", "replace", "retire", "shutdown", "closing",
		"due", "memory",
	}[k]
}

func (a Action) String() string {
	return [...]string{
		"none", "start", "await", "serve", "unpublish", "stop", "kill", "back off", "recheck", "recover",
		"finish", "abandon",
	}[a]
}

// crashLoop makes the worker exit after being ready for up, until it has failed.
func crashLoop(t *testing.T, up time.Duration, away bool, most int) (delays []time.Duration, last State) {
	t.Helper()
	now := time.Hour
	s := State{Wanted: true}
	for range most {
		var act Action
		if s.Status != records.StatusStarting {
			s, act = Next(s, Event{Kind: EvBegin}, testPolicy, now)
			if s.Status == records.StatusFailed {
				return delays, s
			}
			if act != ActStart {
				t.Fatalf("begin: action %v, state %+v", act, s)
			}
		}
		s.Slot = Occupied
		if up > 0 {
			s, _ = Next(s, Event{Kind: EvReady}, testPolicy, now)
			now += up
			if up >= backoffResetAfter {
				s, _ = Next(s, Event{Kind: evSteady}, testPolicy, now)
			}
		}
		s, act = Next(s, Event{Kind: EvExited, Reason: "exited with code 3", Away: away}, testPolicy, now)
		if s.Status == records.StatusFailed {
			return delays, s
		}
		switch act {
		case ActBackOff:
			delays = append(delays, s.History.RetryAt-now)
			now = s.History.RetryAt
			s, _ = Next(s, Event{Kind: EvRetry}, testPolicy, now)
		case ActStart:
			delays = append(delays, 0)
		default:
			return delays, s
		}
	}
	return delays, s
}

func TestBackoffGrowsAndBudgetEndsInFailed(t *testing.T) {
	delays, s := crashLoop(t, 0, false, 100)
	var want []time.Duration
	for delay := 100 * time.Millisecond; delay < 30*time.Second; delay *= 2 {
		want = append(want, delay)
	}
	want = append(want, 30*time.Second)
	if !slices.Equal(delays, want) {
		t.Errorf("delays = %v, want %v", delays, want)
	}
	if s.Status != records.StatusFailed || !strings.Contains(s.Reason, "10/5m") ||
		!strings.Contains(s.Reason, "exited with code 3") {
		t.Errorf("ended as %q because %q, want failed with the budget and the exit", s.Status, s.Reason)
	}
}

func TestFirstRestartAfterTenSecondsIsImmediate(t *testing.T) {
	delays, _ := crashLoop(t, immediateAfter, false, 3)
	if want := []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond}; !slices.Equal(delays, want) {
		t.Errorf("delays = %v, want %v", delays, want)
	}
}

func TestBackoffGrowsByTheFactorOfTheUnit(t *testing.T) {
	for factor, want := range map[float64][]time.Duration{
		1:           {100, 100, 100, 100},
		1.5:         {100, 150, 225, 337},
		10:          {100, 1_000, 10_000, 30_000},
		math.Inf(1): {100, 30_000, 30_000, 30_000},
	} {
		policy := testPolicy
		policy.Factor = factor
		s := State{Wanted: true}
		for i, delay := range want {
			s.Status, s.Slot = records.StatusStarting, Occupied
			s, _ = Next(s, Event{Kind: EvExited}, policy, 0)
			if got := s.History.RetryAt.Truncate(time.Millisecond); got != delay*time.Millisecond {
				t.Errorf("factor %v: delay %d is %s, want %s", factor, i, got, delay*time.Millisecond)
			}
		}
	}
}

// fail has a worker exit while it is starting until it has failed, and then tries it again as often as given. It
// returns the waits between the tries.
func fail(t *testing.T, s State, p Policy, now time.Duration, tries int) (waits []time.Duration, last State) {
	t.Helper()
	for range 1000 {
		s.Status, s.Slot = records.StatusStarting, Occupied
		var act Action
		s, act = Next(s, Event{Kind: EvExited, Reason: "exited with code 3"}, p, now)
		if s.Status == records.StatusFailed {
			if act != ActBackOff || len(waits) == tries {
				return waits, s
			}
			waits = append(waits, s.History.RetryAt-now)
		}
		now = s.History.RetryAt
		if s, act = Next(s, Event{Kind: EvRetry}, p, now); act != ActStart {
			t.Fatalf("action %v of %+v, want it tried again", act, s)
		}
	}
	t.Fatal("it does not fail")
	return nil, s
}

func TestFailedWorkerIsTriedAgainAfterAWaitThatDoubles(t *testing.T) {
	for retry, want := range map[time.Duration][]time.Duration{
		5 * time.Minute:  {5, 10, 20, 30, 30},
		20 * time.Minute: {20, 30, 30, 30, 30},
		time.Hour:        {60, 60, 60, 60, 60},
		-1:               nil,
	} {
		policy := testPolicy
		policy.RetryFailed = retry
		waits, s := fail(t, State{Wanted: true}, policy, time.Hour, len(want))
		for i := range want {
			want[i] *= time.Minute
		}
		if !slices.Equal(waits, want) {
			t.Errorf("retry %s: waits = %v, want %v", retry, waits, want)
		}
		if n := uint64(policy.Budget.Restarts); s.Restarts != n || len(s.History.Spent) != int(n) {
			t.Errorf("retry %s: %d restarts, spent %v: a try is outside of the budget",
				retry, s.Restarts, s.History.Spent)
		}
		if !strings.HasPrefix(s.Reason, "restart budget 10/5m used up: exited with code 3") {
			t.Errorf("retry %s: reason = %q", retry, s.Reason)
		}
	}
}

// A try that makes the worker ready for a minute gives it its whole budget. A shorter one does not.
func TestBudgetOfAFailedWorkerIsRefilledByAMinuteOfBeingReady(t *testing.T) {
	for up, want := range map[time.Duration]struct {
		status records.Status
		wait   time.Duration
	}{
		backoffResetAfter - time.Second: {records.StatusFailed, 10 * time.Minute},
		backoffResetAfter:               {records.StatusStarting, 0},
	} {
		for _, checked := range []bool{false, true} { // whether a check comes before the exit
			_, s := fail(t, State{Wanted: true}, testPolicy, time.Hour, 0)
			now := s.History.RetryAt
			s, _ = Next(s, Event{Kind: EvRetry}, testPolicy, now)
			s.Slot = Occupied
			s, _ = Next(s, Event{Kind: EvReady}, testPolicy, now)
			now += up
			for _, kind := range s.Earned(testPolicy, now) {
				if checked {
					s, _ = Next(s, Event{Kind: kind}, testPolicy, now)
				}
			}
			s, _ = Next(s, Event{Kind: EvExited}, testPolicy, now)
			if s.Status != want.status || s.History.FailedWait != want.wait {
				t.Errorf("ready for %s, checked %t: %s, wait %s, spent %v, want %s and %s",
					up, checked, s.Status, s.History.FailedWait, s.History.Spent, want.status, want.wait)
			}
		}
	}
}

func TestWaitOfAFailedWorkerIsKeptByARestartOfTheMasterAndBeginsAnewWithABoot(t *testing.T) {
	_, failed := fail(t, State{Wanted: true}, testPolicy, time.Hour, 2)
	next := func(p Policy, bootID string, now time.Duration) (State, Action) {
		s := State{Wanted: true, Status: failed.Status, Reason: failed.Reason}
		s.History = SinceBoot(failed.History, bootID, now, p)
		return Next(s, Event{Kind: EvBegin}, p, now)
	}
	at, wait := failed.History.RetryAt, failed.History.FailedWait
	if s, act := next(testPolicy, "", at-time.Second); act != ActBackOff || s.History.RetryAt != at {
		t.Errorf("another master: %v, at %s, want it tried at %s", act, s.History.RetryAt, at)
	}
	if s, act := next(testPolicy, "", at); act != ActStart || s.History.FailedWait != wait {
		t.Errorf("another master when it is due: %v, wait %s, want a start", act, s.History.FailedWait)
	}
	if s, act := next(testPolicy, "another", time.Minute); act != ActBackOff || s.History.RetryAt != time.Minute+wait {
		t.Errorf("another boot: %v, at %s, want it tried after %s", act, s.History.RetryAt, wait)
	}
	for name, change := range map[string]func(*Policy){
		"retry_failed": func(p *Policy) { p.RetryFailed = -1 },
		"mode":         func(p *Policy) { p.Mode = unit.RestartNever },
	} {
		policy := testPolicy
		change(&policy)
		s, act := next(policy, "", at-time.Second)
		if act != ActNone || s.Status != records.StatusFailed || s.History.RetryAt != 0 {
			t.Errorf("%s: %v, %s, at %s, want it given up", name, act, s.Status, s.History.RetryAt)
		}
	}
}

// A worker that has ended before the master began to stop has completed; the next master does not start it again.
func TestWorkerThatEndsAsTheMasterStopsHasCompleted(t *testing.T) {
	policy := testPolicy
	policy.Mode = unit.RestartOnFailure
	for clean, want := range map[bool]records.Status{true: records.StatusCompleted, false: records.StatusStopped} {
		s := State{Wanted: true, Slot: terminating, Status: records.StatusRunning, quitting: true}
		s, act := Next(s, Event{Kind: EvExited, Clean: clean}, policy, 0)
		if act != ActFinish || s.Status != want {
			t.Errorf("clean %t: %s, %v, want %s", clean, s.Status, act, want)
		}
		s = State{Wanted: true, Slot: terminating, Status: records.StatusStopping, quitting: true}
		if s, _ = Next(s, Event{Kind: EvExited, Clean: clean}, policy, 0); s.Status != records.StatusStopped {
			t.Errorf("clean %t after a stop: %s, want it stopped", clean, s.Status)
		}
	}
}

func TestBackoffResetsAfterAMinute(t *testing.T) {
	delays, s := crashLoop(t, backoffResetAfter, false, 50)
	if slices.Max(delays) != 0 {
		t.Errorf("delays = %v, want none", delays)
	}
	if s.Status == records.StatusFailed {
		t.Error("a worker that is up a minute at a time failed: 10 in 5 minutes allow that")
	}
}

func TestTimeInBackoffDoesNotRefillTheBudget(t *testing.T) {
	// 10 s ready, then exits: the waits are far longer than the window in all.
	_, s := crashLoop(t, 5*time.Second, false, 1000)
	if s.Status != records.StatusFailed {
		t.Errorf("status = %q after a thousand restarts of 5 s each, want failed", s.Status)
	}
}

func TestExitWhileNoMasterRanGrantsNothing(t *testing.T) {
	// The master may have been away for long, but the worker may have died at the beginning.
	_, s := crashLoop(t, time.Hour, true, 100)
	if s.Status != records.StatusFailed {
		t.Errorf("status = %q, want failed", s.Status)
	}
}

func TestJitterOnlyShortensAndDelaysStillGrow(t *testing.T) {
	previous := time.Duration(0)
	for _, chance := range []float64{0, 0.999999} {
		s := State{Wanted: true, Status: records.StatusStarting, Slot: Occupied}
		for i := range 8 {
			s.Status, s.Slot = records.StatusStarting, Occupied
			s, _ = Next(s, Event{Kind: EvExited, Chance: chance}, testPolicy, 0)
			delay := s.History.RetryAt
			full := 100 * time.Millisecond << i
			if delay > full || delay < full*3/4 {
				t.Errorf("restart %d, chance %v: delay %v, want within a quarter below %v", i, chance, delay, full)
			}
			if i > 0 && delay <= previous {
				t.Errorf("restart %d, chance %v: delay %v did not grow from %v", i, chance, delay, previous)
			}
			previous = delay
		}
	}
}

func TestMissedPings(t *testing.T) {
	s := State{Wanted: true, Slot: Occupied, Ready: true, Status: records.StatusRunning}
	var seen []string
	for range testPolicy.missed + 1 {
		var act Action
		s, act = Next(s, Event{Kind: EvSilent, Reason: "no answer to Ping"}, testPolicy, 0)
		seen = append(seen, fmt.Sprint(s.Status, " ", act))
	}
	want := []string{"running none", "running none", "unhealthy unpublish", "stopping stop"}
	if !slices.Equal(seen, want) {
		t.Errorf("got %q, want %q", seen, want)
	}

	s = State{Wanted: true, Status: records.StatusRunning}
	s, _ = Next(s, Event{Kind: EvAdoptedSilent}, testPolicy, 0)
	for i := range testPolicy.missed {
		if s.Status != records.StatusUnhealthy {
			t.Fatalf("adopted silent: %q after %d missed, want unhealthy until three since recovery", s.Status, i)
		}
		s, _ = Next(s, Event{Kind: EvSilent}, testPolicy, 0)
	}
	if s.Status != records.StatusStopping {
		t.Errorf("adopted silent: %q after three missed, want stopping", s.Status)
	}
}

// A worker that is silent because it works is stopped when the limit is over, and gets no calls before.
func TestBusyWorkerIsKeptUntilItsLimit(t *testing.T) {
	for name, test := range map[string]struct {
		busy  bool
		limit time.Duration
		want  time.Duration // when it is stopped
	}{
		"idle":     {false, 5 * time.Minute, 3 * time.Second},
		"busy":     {true, 5 * time.Minute, 5 * time.Minute},
		"no limit": {true, -1, 3 * time.Second},
	} {
		policy := testPolicy
		policy.busyLimit = test.limit
		s := State{Wanted: true, Slot: Occupied, Ready: true, Status: records.StatusRunning}
		stopped := time.Duration(-1)
		for at := time.Duration(0); at < time.Hour && stopped < 0; at += time.Second {
			var act Action
			s, act = Next(s, Event{Kind: EvSilent, Reason: "why", Busy: test.busy, Silent: at}, policy, at)
			if act == ActStop {
				stopped = at
			} else if want := at < 2*time.Second; s.Ready != want {
				t.Errorf("%s: ready %t at %s", name, s.Ready, at)
			}
		}
		if stopped != test.want {
			t.Errorf("%s: stopped at %s, want %s", name, stopped, test.want)
		}
	}
}

func TestUnhealthyWorkerIsHealthyAgainAfterPassesInARow(t *testing.T) {
	policy := testPolicy
	policy.passes = 3
	s := State{Wanted: true, Slot: Occupied, Status: records.StatusUnhealthy}
	for i, step := range []struct {
		kind  EventKind
		ready bool
	}{
		{EvPong, false},
		{EvPong, false},
		{EvSilent, false},
		{EvPong, false},
		{EvPong, false},
		{EvPong, true},
		{EvSilent, true},
		{EvPong, true}, // one missed alone changes nothing
		{EvLost, false},
		{EvPong, true}, // nor does a lost connection make it unhealthy
	} {
		if s, _ = Next(s, Event{Kind: step.kind}, policy, 0); s.Ready != step.ready {
			t.Errorf("step %d, %v: ready %t", i, step.kind, s.Ready)
		}
	}
}

func TestStrangerThatStaysIsEscalated(t *testing.T) {
	s := State{
		Wanted: true, Slot: Occupied, Ready: true, Status: records.StatusRunning, failures: testPolicy.missed - 1,
	}
	var seen []string
	for range testPolicy.missed + 1 {
		var act Action
		s, act = Next(s, Event{Kind: EvStranger, Reason: "held by another process"}, testPolicy, 0)
		seen = append(seen, fmt.Sprint(s.Status, " ", act))
	}
	want := []string{"unhealthy unpublish", "unhealthy none", "unhealthy none", "stopping stop"}
	if !slices.Equal(seen, want) {
		t.Errorf("got %q, want %q", seen, want)
	}
}

func TestSuspendedIsNeverEscalated(t *testing.T) {
	s := State{Wanted: true, Slot: Occupied, Ready: true, Status: records.StatusRunning}
	for range 100 {
		var act Action
		s, act = Next(s, Event{Kind: EvSuspended, Reason: "stopped by a signal"}, testPolicy, 0)
		if act != ActUnpublish {
			t.Fatalf("action %v, want unpublish", act)
		}
	}
	if s, act := Next(s, Event{Kind: EvPong}, testPolicy, 0); act != ActServe || !s.Ready {
		t.Errorf("after it went on: %v, ready %v, want it back in rotation", act, s.Ready)
	}
}

func TestRestartModes(t *testing.T) {
	for _, test := range []struct {
		mode  unit.RestartMode
		clean bool
		want  records.Status
	}{
		{unit.RestartAlways, true, records.StatusBackoff},
		{unit.RestartAlways, false, records.StatusBackoff},
		{unit.RestartOnFailure, true, records.StatusCompleted},
		{unit.RestartOnFailure, false, records.StatusBackoff},
		{unit.RestartNever, true, records.StatusCompleted},
		{unit.RestartNever, false, records.StatusFailed},
	} {
		policy := testPolicy
		policy.Mode = test.mode
		s := State{Wanted: true, Slot: Occupied, Status: records.StatusRunning}
		s, _ = Next(s, Event{Kind: EvExited, Clean: test.clean}, policy, 0)
		if s.Status != test.want {
			t.Errorf("%s, clean %v: %q, want %q", test.mode, test.clean, s.Status, test.want)
		}
	}
}

func TestRecoveredStopCostsNoBudget(t *testing.T) {
	s := State{Wanted: true, Status: records.StatusStopping}
	s, act := Next(s, Event{Kind: EvAdopted}, testPolicy, 0)
	if act != ActStop {
		t.Fatalf("action %v, want the stop to go on", act)
	}
	s, act = Next(s, Event{Kind: EvExited}, testPolicy, 0)
	if act != ActStart || len(s.History.Spent) != 0 || s.Restarts != 0 {
		t.Errorf("action %v, spent %v, restarts %d: want a start that costs nothing", act, s.History.Spent, s.Restarts)
	}
}

func TestBudgetOfAnotherBoot(t *testing.T) {
	b := records.RestartHistory{
		BootID: "old", ReadySince: time.Hour, RetryAt: 2 * time.Hour, Spent: []time.Duration{1, 2}, Backoff: time.Hour,
	}
	b = SinceBoot(b, "new", time.Minute, testPolicy)
	if b.ReadySince != 0 || b.RetryAt != 0 || b.BootID != "new" {
		t.Errorf("clock readings of another boot were kept: %+v", b)
	}
	if len(b.Spent) != 2 {
		t.Errorf("the budget was refilled by a reboot: %+v", b)
	}
	if b.Backoff != testPolicy.MaxBackoff {
		t.Errorf("backoff = %v, want it clamped to %v", b.Backoff, testPolicy.MaxBackoff)
	}
	b = SinceBoot(records.RestartHistory{BootID: "new", RetryAt: 24 * time.Hour}, "new", time.Minute, testPolicy)
	if most := time.Minute + testPolicy.MaxBackoff; b.RetryAt != most {
		t.Errorf("retry at %v, want it clamped to %v", b.RetryAt, most)
	}
}

func TestParseBudget(t *testing.T) {
	for _, s := range []string{"10/5m", "0/1h", "3/1m30s"} {
		b, err := unit.ParseRestartBudget(s)
		if err != nil || b.String() != s {
			t.Errorf("ParseRestartBudget(%q) = %v, %v", s, b, err)
		}
	}
	for _, s := range []string{"", "10", "/5m", "10/", "-1/5m", "x/5m", "10/-5m", "10/0s", "10/5"} {
		if b, err := unit.ParseRestartBudget(s); err == nil {
			t.Errorf("ParseRestartBudget(%q) = %v, want an error", s, b)
		}
	}
}

func TestStartThatIsCalledOffLeavesNoWorkerStarting(t *testing.T) {
	s, act := Next(State{Wanted: true, Status: records.StatusStarting}, Event{Kind: EvShutdown}, Policy{}, 0)
	if act != ActFinish || s.Status != records.StatusStopped || !s.Wanted {
		t.Errorf("a start called off by the end of the master: %+v, action %v; want it stopped and still wanted",
			s, act)
	}
}

// The master had the worker's port reserved, and the worker could not listen beside the reservation.
func TestExitThatTheMasterHasCausedCostsNoBudgetWhateverThePolicy(t *testing.T) {
	for _, mode := range []unit.RestartMode{unit.RestartAlways, unit.RestartOnFailure, unit.RestartNever} {
		policy := testPolicy
		policy.Mode = mode
		s := State{Wanted: true, Slot: Occupied, Status: records.StatusStarting}
		s, act := Next(s, Event{Kind: EvExited, Ours: true}, policy, 0)
		if act != ActBackOff || s.Status != records.StatusBackoff || len(s.History.Spent) != 0 || s.Restarts != 0 {
			t.Errorf("%s: action %v, %s, spent %v, restarts %d", mode, act, s.Status, s.History.Spent, s.Restarts)
		}
	}
}

func TestDelayAfterAFaultOfTheMasterIsBounded(t *testing.T) {
	for longest, want := range map[time.Duration]time.Duration{
		30 * time.Second: OwnFaultRetry,
		2 * time.Second:  2 * time.Second,
	} {
		p := testPolicy
		p.MaxBackoff = longest
		s := State{Wanted: true}
		var act Action
		for n := range 200 {
			s.Status = records.StatusStarting
			s, act = Next(s, Event{Kind: EvStartFailed, Ours: true, Chance: 0}, p, time.Hour)
			delay := s.History.RetryAt - time.Hour
			if want := min(p.Backoff<<min(n, 16), want); delay != want || act != ActBackOff {
				t.Fatalf("backoff max %s: delay %d is %s (%v), want %s", longest, n, delay, act, want)
			}
		}
	}
}

func TestNextLook(t *testing.T) {
	now := time.Hour
	for wait, want := range map[time.Duration]time.Duration{
		-time.Second: 0, 0: 0, time.Second: time.Second, 30 * time.Minute: longestLook,
	} {
		s := State{History: records.RestartHistory{RetryAt: now + wait}}
		if got := s.NextLook(now); got != want {
			t.Errorf("NextLook of a wait of %s = %s, want %s", wait, got, want)
		}
	}
}

// A worker that is stopped because it is silent may exit with code 0. It is no less ill for that.
func TestExitAfterAStopForAFailureIsNotClean(t *testing.T) {
	policy := testPolicy
	ill := State{Wanted: true, Status: records.StatusStopping, Slot: terminating, Reason: "no answer to Ping"}
	for mode, want := range map[unit.RestartMode]records.Status{
		unit.RestartAlways: records.StatusBackoff, unit.RestartOnFailure: records.StatusBackoff,
		unit.RestartNever: records.StatusFailed,
	} {
		policy.Mode = mode
		exited := Event{Kind: EvExited, Reason: ill.Reason, Clean: true}
		if s, _ := Next(ill, exited, policy, time.Hour); s.Status != want {
			t.Errorf("%s: status %q, want %q", mode, s.Status, want)
		}
	}
}

package supervisor

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store"
)

var testPolicy = Unit{}.withDefaults().Restart

// TestNextEveryStateAndEvent covers every pair: what is not listed must change
// nothing and do nothing.
func TestNextEveryStateAndEvent(t *testing.T) {
	now := time.Hour
	waiting := store.Budget{RetryAt: now + time.Second}
	states := map[string]state{
		"new":         {wanted: true},
		"starting":    {wanted: true, status: store.StatusStarting},
		"started":     {wanted: true, status: store.StatusStarting, alive: true},
		"running":     {wanted: true, status: store.StatusRunning, alive: true, ready: true, budget: store.Budget{ReadySince: now - 5*time.Second}},
		"unhealthy":   {wanted: true, status: store.StatusUnhealthy, alive: true, failures: missedPings},
		"stopping":    {wanted: true, status: store.StatusStopping, alive: true, reason: "ill"},
		"backoff":     {wanted: true, status: store.StatusBackoff, budget: waiting},
		"failed":      {wanted: true, status: store.StatusFailed},
		"stopped":     {wanted: true, status: store.StatusStopped},
		"unwanted":    {status: store.StatusStopped},
		"quitting":    {wanted: true, status: store.StatusStopping, alive: true, quitting: true},
		"retired":     {status: store.StatusStopping, alive: true, retired: true},
		"recovered":   {wanted: true, status: store.StatusRunning},                 // recorded running, not found yet
		"interrupted": {wanted: true, status: store.StatusStopping, reason: "ill"}, // recorded stopping, not found yet
	}
	// state, event → status, action
	want := map[string]string{
		"new begin":         "starting start",
		"starting begin":    "starting start",
		"recovered begin":   "starting start",
		"interrupted begin": "starting start",
		"stopped begin":     "starting start",
		"backoff begin":     "backoff wait",
		"failed begin":      "failed none",
		"unwanted begin":    "stopped none",

		"new adopted":         "running serve",
		"starting adopted":    "running serve",
		"started adopted":     "running serve",
		"recovered adopted":   "running serve",
		"running adopted":     "running serve",
		"unhealthy adopted":   "running serve",
		"backoff adopted":     "running serve",
		"failed adopted":      "running serve",
		"stopped adopted":     "running serve",
		"interrupted adopted": "stopping stop",
		"stopping adopted":    "stopping stop",
		"quitting adopted":    "stopping stop",
		"retired adopted":     "stopping stop",
		"unwanted adopted":    "stopping stop",

		"new adopted silent":         "unhealthy hold",
		"starting adopted silent":    "starting await",
		"started adopted silent":     "starting await",
		"recovered adopted silent":   "unhealthy hold",
		"running adopted silent":     "unhealthy hold",
		"unhealthy adopted silent":   "unhealthy hold",
		"backoff adopted silent":     "unhealthy hold",
		"failed adopted silent":      "unhealthy hold",
		"stopped adopted silent":     "unhealthy hold",
		"interrupted adopted silent": "stopping stop",
		"stopping adopted silent":    "stopping stop",
		"quitting adopted silent":    "stopping stop",
		"retired adopted silent":     "stopping stop",
		"unwanted adopted silent":    "stopping stop",

		"starting ready": "running serve",
		"started ready":  "running serve",

		"started not ready": "stopping stop",

		"starting start failed": "backoff wait",

		"unhealthy pong": "running serve",
		"recovered pong": "running serve",

		"running lost": "running hold",

		"unhealthy silent":    "stopping stop",
		"running suspended":   "unhealthy hold",
		"unhealthy suspended": "unhealthy hold",
		"recovered suspended": "unhealthy hold",

		"new exited":         "backoff wait",
		"starting exited":    "backoff wait",
		"started exited":     "backoff wait",
		"running exited":     "backoff wait",
		"recovered exited":   "backoff wait",
		"unhealthy exited":   "backoff wait",
		"stopping exited":    "backoff wait",
		"interrupted exited": "backoff wait",
		"backoff exited":     "backoff wait",
		"failed exited":      "backoff wait",
		"stopped exited":     "backoff wait",
		"unwanted exited":    "stopped none",
		"quitting exited":    "stopped finish",
		"retired exited":     "stopped finish",

		"backoff retry": "starting start",

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
		"stopped shutdown":     "stopped finish",
		"unwanted shutdown":    "stopped finish",
		"quitting shutdown":    "stopping none",
		"retired shutdown":     "stopping none",
	}
	for name, s := range states {
		for kind := range evShutdown + 1 {
			pair := name + " " + kind.String()
			got, act := next(s, event{kind: kind, reason: "why"}, testPolicy, now)
			expected, listed := want[pair]
			if !listed {
				expected = string(s.status) + " none"
			}
			if result := string(got.status) + " " + act.String(); result != expected {
				t.Errorf("%s: got %q, want %q", pair, result, expected)
			}
			if got.ready && (!got.alive || got.status != store.StatusRunning) && s.alive {
				t.Errorf("%s: ready without being alive and running: %+v", pair, got)
			}
			if act == actStart && (s.alive || !got.wanted) {
				t.Errorf("%s: starts a twin, or what nobody wants: %+v", pair, got)
			}
			delete(want, pair)
		}
	}
	for pair := range want {
		t.Errorf("%q is expected, but there is no such pair", pair)
	}
}

func (k eventKind) String() string {
	return [...]string{
		"begin", "adopted", "adopted silent", "ready", "not ready", "start failed", "pong", "silent", "lost",
		"suspended", "exited", "retry", "steady", "settled", "shutdown",
	}[k]
}

func (a action) String() string {
	return [...]string{"none", "start", "await", "serve", "hold", "stop", "wait", "finish"}[a]
}

// crashLoop has the worker exit after being ready for up, until it failed.
func crashLoop(t *testing.T, up time.Duration, away bool, most int) (delays []time.Duration, last state) {
	t.Helper()
	now := time.Hour
	s := state{wanted: true}
	for range most {
		var act action
		if s.status != store.StatusStarting {
			s, act = next(s, event{kind: evBegin}, testPolicy, now)
			if s.status == store.StatusFailed {
				return delays, s
			}
			if act != actStart {
				t.Fatalf("begin: action %v, state %+v", act, s)
			}
		}
		s.alive = true
		if up > 0 {
			s, _ = next(s, event{kind: evReady}, testPolicy, now)
			now += up
			if up >= backoffResetAfter {
				s, _ = next(s, event{kind: evSteady}, testPolicy, now)
			}
		}
		s, act = next(s, event{kind: evExited, reason: "exited with code 3", away: away}, testPolicy, now)
		switch act {
		case actWait:
			delays = append(delays, s.budget.RetryAt-now)
			now = s.budget.RetryAt
			s, _ = next(s, event{kind: evRetry}, testPolicy, now)
		case actStart:
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
	if s.status != store.StatusFailed || !strings.Contains(s.reason, "10/5m") || !strings.Contains(s.reason, "exited with code 3") {
		t.Errorf("ended as %q because %q, want failed with the budget and the exit", s.status, s.reason)
	}
}

func TestFirstRestartAfterTenSecondsIsImmediate(t *testing.T) {
	delays, _ := crashLoop(t, immediateAfter, false, 3)
	if want := []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond}; !slices.Equal(delays, want) {
		t.Errorf("delays = %v, want %v", delays, want)
	}
}

func TestBackoffResetsAfterAMinute(t *testing.T) {
	delays, s := crashLoop(t, backoffResetAfter, false, 50)
	if slices.Max(delays) != 0 {
		t.Errorf("delays = %v, want none", delays)
	}
	if s.status == store.StatusFailed {
		t.Error("a worker that is up a minute at a time failed: 10 in 5 minutes allow that")
	}
}

func TestTimeInBackoffDoesNotRefillTheBudget(t *testing.T) {
	// 10 s ready, then exits: the waits are far longer than the window in all.
	_, s := crashLoop(t, 5*time.Second, false, 1000)
	if s.status != store.StatusFailed {
		t.Errorf("status = %q after a thousand restarts of 5 s each, want failed", s.status)
	}
}

func TestExitWhileNoMasterRanGrantsNothing(t *testing.T) {
	// However long the master was away, the worker may have died at once.
	_, s := crashLoop(t, time.Hour, true, 100)
	if s.status != store.StatusFailed {
		t.Errorf("status = %q, want failed", s.status)
	}
}

func TestJitterOnlyShortensAndDelaysStillGrow(t *testing.T) {
	previous := time.Duration(0)
	for _, chance := range []float64{0, 0.999999} {
		s := state{wanted: true, status: store.StatusStarting, alive: true}
		for i := range 8 {
			s.status, s.alive = store.StatusStarting, true
			s, _ = next(s, event{kind: evExited, chance: chance}, testPolicy, 0)
			delay := s.budget.RetryAt
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
	s := state{wanted: true, alive: true, ready: true, status: store.StatusRunning}
	var seen []string
	for range missedPings + 1 {
		var act action
		s, act = next(s, event{kind: evSilent, reason: "no answer to Ping"}, testPolicy, 0)
		seen = append(seen, fmt.Sprint(s.status, " ", act))
	}
	if want := []string{"running none", "running none", "unhealthy hold", "stopping stop"}; !slices.Equal(seen, want) {
		t.Errorf("got %q, want %q", seen, want)
	}

	s = state{wanted: true, status: store.StatusRunning}
	s, _ = next(s, event{kind: evAdoptedSilent}, testPolicy, 0)
	for i := range missedPings {
		if s.status != store.StatusUnhealthy {
			t.Fatalf("adopted silent: %q after %d missed, want unhealthy until three since recovery", s.status, i)
		}
		s, _ = next(s, event{kind: evSilent}, testPolicy, 0)
	}
	if s.status != store.StatusStopping {
		t.Errorf("adopted silent: %q after three missed, want stopping", s.status)
	}
}

func TestSuspendedIsNeverEscalated(t *testing.T) {
	s := state{wanted: true, alive: true, ready: true, status: store.StatusRunning}
	for range 100 {
		var act action
		s, act = next(s, event{kind: evSuspended, reason: "stopped by a signal"}, testPolicy, 0)
		if act != actHold {
			t.Fatalf("action %v, want hold", act)
		}
	}
	if s, act := next(s, event{kind: evPong}, testPolicy, 0); act != actServe || !s.ready {
		t.Errorf("after it went on: %v, ready %v, want it back in rotation", act, s.ready)
	}
}

func TestRestartModes(t *testing.T) {
	for _, test := range []struct {
		mode  RestartMode
		clean bool
		want  store.Status
	}{
		{RestartAlways, true, store.StatusBackoff},
		{RestartAlways, false, store.StatusBackoff},
		{RestartUnlessStopped, true, store.StatusBackoff},
		{RestartOnFailure, true, store.StatusStopped},
		{RestartOnFailure, false, store.StatusBackoff},
		{RestartNever, true, store.StatusStopped},
		{RestartNever, false, store.StatusFailed},
	} {
		policy := testPolicy
		policy.Mode = test.mode
		s := state{wanted: true, alive: true, status: store.StatusRunning}
		s, _ = next(s, event{kind: evExited, clean: test.clean}, policy, 0)
		if s.status != test.want {
			t.Errorf("%s, clean %v: %q, want %q", test.mode, test.clean, s.status, test.want)
		}
	}
}

func TestRecoveredStopCostsNoBudget(t *testing.T) {
	s := state{wanted: true, status: store.StatusStopping}
	s, act := next(s, event{kind: evAdopted}, testPolicy, 0)
	if act != actStop {
		t.Fatalf("action %v, want the stop to go on", act)
	}
	s, act = next(s, event{kind: evExited}, testPolicy, 0)
	if act != actStart || len(s.budget.Spent) != 0 || s.restarts != 0 {
		t.Errorf("action %v, spent %v, restarts %d: want a start that costs nothing", act, s.budget.Spent, s.restarts)
	}
}

func TestBudgetOfAnotherBoot(t *testing.T) {
	b := store.Budget{BootID: "old", ReadySince: time.Hour, RetryAt: 2 * time.Hour, Spent: []time.Duration{1, 2}, Backoff: time.Hour}
	b = sinceBoot(b, "new", time.Minute, testPolicy)
	if b.ReadySince != 0 || b.RetryAt != 0 || b.BootID != "new" {
		t.Errorf("clock readings of another boot were kept: %+v", b)
	}
	if len(b.Spent) != 2 {
		t.Errorf("the budget was refilled by a reboot: %+v", b)
	}
	if b.Backoff != testPolicy.MaxBackoff {
		t.Errorf("backoff = %v, want it clamped to %v", b.Backoff, testPolicy.MaxBackoff)
	}
	b = sinceBoot(store.Budget{BootID: "new", RetryAt: 24 * time.Hour}, "new", time.Minute, testPolicy)
	if most := time.Minute + testPolicy.MaxBackoff; b.RetryAt != most {
		t.Errorf("retry at %v, want it clamped to %v", b.RetryAt, most)
	}
}

func TestParseBudget(t *testing.T) {
	for _, s := range []string{"10/5m", "0/1h", "3/1m30s"} {
		b, err := ParseBudget(s)
		if err != nil || b.String() != s {
			t.Errorf("ParseBudget(%q) = %v, %v", s, b, err)
		}
	}
	for _, s := range []string{"", "10", "/5m", "10/", "-1/5m", "x/5m", "10/-5m", "10/0s", "10/5"} {
		if b, err := ParseBudget(s); err == nil {
			t.Errorf("ParseBudget(%q) = %v, want an error", s, b)
		}
	}
}

func TestStartThatIsCalledOffLeavesNoWorkerStarting(t *testing.T) {
	s, act := next(state{wanted: true, status: store.StatusStarting}, event{kind: evShutdown}, RestartPolicy{}, 0)
	if act != actFinish || s.status != store.StatusStopped || !s.wanted {
		t.Errorf("a start called off by the end of the master: %+v, action %v; want it stopped and still wanted", s, act)
	}
}

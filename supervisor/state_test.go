package supervisor

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store"
)

var (
	testPolicy = Unit{}.withDefaults().policy()
	testHealth = Unit{}.withDefaults().Health
)

// TestNextEveryStateAndEvent covers every pair: a pair that is not listed must change nothing and lead to no
// action.
func TestNextEveryStateAndEvent(t *testing.T) {
	now := time.Hour
	waiting := store.RestartHistory{RetryAt: now + time.Second}
	states := map[string]state{
		"new":      {wanted: true},
		"starting": {wanted: true, status: store.StatusStarting},
		"started":  {wanted: true, status: store.StatusStarting, slot: occupied},
		"running": {
			wanted: true, status: store.StatusRunning, slot: occupied, ready: true,
			history: store.RestartHistory{ReadySince: now - 5*time.Second},
		},
		"unhealthy":   {wanted: true, status: store.StatusUnhealthy, slot: occupied, failures: testPolicy.missed},
		"stopping":    {wanted: true, status: store.StatusStopping, slot: terminating, reason: "ill"},
		"backoff":     {wanted: true, status: store.StatusBackoff, history: waiting},
		"failed":      {wanted: true, status: store.StatusFailed},
		"stopped":     {wanted: true, status: store.StatusStopped},
		"unwanted":    {status: store.StatusStopped},
		"quitting":    {wanted: true, status: store.StatusStopping, slot: terminating, quitting: true},
		"retired":     {status: store.StatusStopping, slot: terminating, retired: true},
		"recovered":   {wanted: true, status: store.StatusRunning},                 // recorded running, not found yet
		"interrupted": {wanted: true, status: store.StatusStopping, reason: "ill"}, // recorded stopping, not found yet

		"held":          {wanted: true, status: store.StatusRunning, slot: unverified, reason: "held: why"},
		"held failed":   {wanted: true, status: store.StatusFailed, slot: unverified, reason: "held: why"},
		"dying":         {wanted: true, status: store.StatusRunning, slot: terminating},
		"dying start":   {wanted: true, status: store.StatusStarting, slot: terminating},
		"remaining":     {wanted: true, status: store.StatusUnhealthy, slot: remaining, reason: "held: why"},
		"remaining ill": {wanted: true, status: store.StatusStopping, slot: remaining, reason: "ill"},
	}
	// state, event → status, action
	want := map[string]string{
		"new begin":         "starting start",
		"starting begin":    "starting start",
		"recovered begin":   "starting start",
		"interrupted begin": "starting start",
		"stopped begin":     "starting start",
		"backoff begin":     "backoff back off",
		"failed begin":      "failed none",
		"unwanted begin":    "stopped none",

		"new adopted":         "running serve",
		"starting adopted":    "running serve",
		"recovered adopted":   "running serve",
		"backoff adopted":     "running serve",
		"failed adopted":      "running serve",
		"stopped adopted":     "running serve",
		"interrupted adopted": "stopping stop",
		"unwanted adopted":    "stopping stop",

		"new adopted silent":         "unhealthy unpublish",
		"starting adopted silent":    "starting await",
		"recovered adopted silent":   "unhealthy unpublish",
		"backoff adopted silent":     "unhealthy unpublish",
		"failed adopted silent":      "unhealthy unpublish",
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
		"stopped exited":     "backoff back off",
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
			if got.ready && (got.slot != occupied || got.status != store.StatusRunning) && s.alive() {
				t.Errorf("%s: ready without being occupied and running: %+v", pair, got)
			}
			if act == actStart && (s.slot != vacant && s.slot != unverified && kind != evExited || !got.wanted) {
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
		"begin", "adopted", "adopted silent", "found dead", "unverifiable", "forked", "start failed", "ready",
		"not ready",
		"pong", "silent", "lost", "stranger", "suspended", "died", "remains", "exited", "retry", "steady",
		"window passed", "shutdown",
	}[k]
}

func (a action) String() string {
	return [...]string{
		"none", "start", "await", "serve", "unpublish", "stop", "kill", "back off", "recheck", "recover",
		"finish", "abandon",
	}[a]
}

// crashLoop makes the worker exit after being ready for up, until it has failed.
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
		s.slot = occupied
		if up > 0 {
			s, _ = next(s, event{kind: evReady}, testPolicy, now)
			now += up
			if up >= backoffResetAfter {
				s, _ = next(s, event{kind: evSteady}, testPolicy, now)
			}
		}
		s, act = next(s, event{kind: evExited, reason: "exited with code 3", away: away}, testPolicy, now)
		switch act {
		case actBackOff:
			delays = append(delays, s.history.RetryAt-now)
			now = s.history.RetryAt
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
	if s.status != store.StatusFailed || !strings.Contains(s.reason, "10/5m") ||
		!strings.Contains(s.reason, "exited with code 3") {
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
	// The master may have been away for long, but the worker may have died at the beginning.
	_, s := crashLoop(t, time.Hour, true, 100)
	if s.status != store.StatusFailed {
		t.Errorf("status = %q, want failed", s.status)
	}
}

func TestJitterOnlyShortensAndDelaysStillGrow(t *testing.T) {
	previous := time.Duration(0)
	for _, chance := range []float64{0, 0.999999} {
		s := state{wanted: true, status: store.StatusStarting, slot: occupied}
		for i := range 8 {
			s.status, s.slot = store.StatusStarting, occupied
			s, _ = next(s, event{kind: evExited, chance: chance}, testPolicy, 0)
			delay := s.history.RetryAt
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
	s := state{wanted: true, slot: occupied, ready: true, status: store.StatusRunning}
	var seen []string
	for range testPolicy.missed + 1 {
		var act action
		s, act = next(s, event{kind: evSilent, reason: "no answer to Ping"}, testPolicy, 0)
		seen = append(seen, fmt.Sprint(s.status, " ", act))
	}
	want := []string{"running none", "running none", "unhealthy unpublish", "stopping stop"}
	if !slices.Equal(seen, want) {
		t.Errorf("got %q, want %q", seen, want)
	}

	s = state{wanted: true, status: store.StatusRunning}
	s, _ = next(s, event{kind: evAdoptedSilent}, testPolicy, 0)
	for i := range testPolicy.missed {
		if s.status != store.StatusUnhealthy {
			t.Fatalf("adopted silent: %q after %d missed, want unhealthy until three since recovery", s.status, i)
		}
		s, _ = next(s, event{kind: evSilent}, testPolicy, 0)
	}
	if s.status != store.StatusStopping {
		t.Errorf("adopted silent: %q after three missed, want stopping", s.status)
	}
}

func TestStrangerThatStaysIsEscalated(t *testing.T) {
	s := state{wanted: true, slot: occupied, ready: true, status: store.StatusRunning, failures: testPolicy.missed - 1}
	var seen []string
	for range testPolicy.missed + 1 {
		var act action
		s, act = next(s, event{kind: evStranger, reason: "held by another process"}, testPolicy, 0)
		seen = append(seen, fmt.Sprint(s.status, " ", act))
	}
	want := []string{"unhealthy unpublish", "unhealthy none", "unhealthy none", "stopping stop"}
	if !slices.Equal(seen, want) {
		t.Errorf("got %q, want %q", seen, want)
	}
}

func TestSuspendedIsNeverEscalated(t *testing.T) {
	s := state{wanted: true, slot: occupied, ready: true, status: store.StatusRunning}
	for range 100 {
		var act action
		s, act = next(s, event{kind: evSuspended, reason: "stopped by a signal"}, testPolicy, 0)
		if act != actUnpublish {
			t.Fatalf("action %v, want unpublish", act)
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
		{RestartOnFailure, true, store.StatusStopped},
		{RestartOnFailure, false, store.StatusBackoff},
		{RestartNever, true, store.StatusStopped},
		{RestartNever, false, store.StatusFailed},
	} {
		policy := testPolicy
		policy.Mode = test.mode
		s := state{wanted: true, slot: occupied, status: store.StatusRunning}
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
	if act != actStart || len(s.history.Spent) != 0 || s.restarts != 0 {
		t.Errorf("action %v, spent %v, restarts %d: want a start that costs nothing", act, s.history.Spent, s.restarts)
	}
}

func TestBudgetOfAnotherBoot(t *testing.T) {
	b := store.RestartHistory{
		BootID: "old", ReadySince: time.Hour, RetryAt: 2 * time.Hour, Spent: []time.Duration{1, 2}, Backoff: time.Hour,
	}
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
	b = sinceBoot(store.RestartHistory{BootID: "new", RetryAt: 24 * time.Hour}, "new", time.Minute, testPolicy)
	if most := time.Minute + testPolicy.MaxBackoff; b.RetryAt != most {
		t.Errorf("retry at %v, want it clamped to %v", b.RetryAt, most)
	}
}

func TestParseBudget(t *testing.T) {
	for _, s := range []string{"10/5m", "0/1h", "3/1m30s"} {
		b, err := ParseRestartBudget(s)
		if err != nil || b.String() != s {
			t.Errorf("ParseRestartBudget(%q) = %v, %v", s, b, err)
		}
	}
	for _, s := range []string{"", "10", "/5m", "10/", "-1/5m", "x/5m", "10/-5m", "10/0s", "10/5"} {
		if b, err := ParseRestartBudget(s); err == nil {
			t.Errorf("ParseRestartBudget(%q) = %v, want an error", s, b)
		}
	}
}

func TestStartThatIsCalledOffLeavesNoWorkerStarting(t *testing.T) {
	s, act := next(state{wanted: true, status: store.StatusStarting}, event{kind: evShutdown}, policy{}, 0)
	if act != actFinish || s.status != store.StatusStopped || !s.wanted {
		t.Errorf("a start called off by the end of the master: %+v, action %v; want it stopped and still wanted",
			s, act)
	}
}

// The master had the worker's port reserved, and the worker could not listen beside the reservation.
func TestExitThatTheMasterHasCausedCostsNoBudgetWhateverThePolicy(t *testing.T) {
	for _, mode := range []RestartMode{RestartAlways, RestartOnFailure, RestartNever} {
		policy := testPolicy
		policy.Mode = mode
		s := state{wanted: true, slot: occupied, status: store.StatusStarting}
		s, act := next(s, event{kind: evExited, ours: true}, policy, 0)
		if act != actBackOff || s.status != store.StatusBackoff || len(s.history.Spent) != 0 || s.restarts != 0 {
			t.Errorf("%s: action %v, %s, spent %v, restarts %d", mode, act, s.status, s.history.Spent, s.restarts)
		}
	}
}

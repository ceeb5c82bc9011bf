//go:build e2e && linux

package units

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/e2e/harness"
)

const (
	// hooked has the unit shop with all three hooks. Each process notes its steps in one file.
	hooked = `
defaults:
  kind: managed
  working_dir: data
  environment: {NOTES: "${NOTES}", GREETING: "hello {worker}"}
  restart: {backoff: {initial: 1ms, max: 5ms}, budget: {restarts: 2, within: 1h}, retry_failed: 1h}
units:
  shop:
    command: [./shop, "{port}"]
    health: {type: process}
    start: {settle: 20ms, timeout: 1m, before: [./hook, before, "{unit}", "{port}"]}
    stop: {grace: 20s, command: [./hook, stop, "{worker}", "{port}"], after: [./hook, after, "{replica}", "{port}"]}
`
	// shop ends by itself with the signal TERM.
	shop = `#!/bin/sh
exec 2>/dev/null # the shell notes the end of its sleep
echo "worker begins" >>"$NOTES/order"
echo "output of the worker, port $1 $HSU_WORKER_PORT"
trap 'echo "worker ends" >>"$NOTES/order"; exit 0' TERM
while :; do sleep 0.02; done
`
	// hook notes its begin and its end. The file $NOTES/MOMENT has its action between: "block" until that file is
	// gone, "fail", or "stay" for good, whatever signal it gets. It also notes if another run of it lives.
	hookScript = `#!/bin/sh
for pid in $(cat "$NOTES/$1.pids" 2>/dev/null); do
	! grep -q '^State:.[RSDT]' "/proc/$pid/status" 2>/dev/null || echo "$1 has a twin" >>"$NOTES/order"
done
echo $$ >>"$NOTES/$1.pids"
echo "$1 begins" >>"$NOTES/order"
echo "output of $1: $2 $3 $HSU_WORKER_PORT $GREETING $(pwd) $HSU_EXIT_CODE,$HSU_EXIT_SIGNAL"
if [ -n "$HSU_WORKER_PID" ] && kill -0 "$HSU_WORKER_PID"; then echo "$1 sees the worker alive"; fi
case $(cat "$NOTES/$1" 2>/dev/null) in
block) while [ -e "$NOTES/$1" ]; do sleep 0.02; done ;;
fail) exit 3 ;;
stay) trap '' TERM; while :; do sleep 0.02; done ;;
esac
echo "$1 ends" >>"$NOTES/order"
`
)

// newHookSite returns a site with the unit shop.
func newHookSite(t *testing.T, more string) *site {
	t.Helper()
	s := newSite(t, map[string]string{"hsu.yaml": hooked + more, "shop": shop, "hook": hookScript, "data/keep": ""})
	s.environ = []string{"NOTES=" + s.Record}
	return s
}

// hook sets the action of a hook from now on; "": nothing.
func (s *site) hook(moment, what string) {
	s.T.Helper()
	err := os.Remove(filepath.Join(s.Record, moment))
	if what != "" {
		err = os.WriteFile(filepath.Join(s.Record, moment), []byte(what), 0o600)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.T.Fatal(err)
	}
}

// order returns the notes of the processes.
func (s *site) order() []string {
	text, _ := os.ReadFile(filepath.Join(s.Record, "order"))
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

// awaitNth returns when a line was noted n times.
func (s *site) awaitNth(line string, n int) {
	s.T.Helper()
	harness.WaitFor(s.T, fmt.Sprintf("%q was noted %d times", line, n), func() error {
		noted := s.order()
		if got := len(slices.DeleteFunc(slices.Clone(noted), func(l string) bool { return l != line })); got < n {
			return fmt.Errorf("%d times: %q", got, noted)
		}
		return nil
	})
}

func (s *site) wantNoted(want ...string) {
	s.T.Helper()
	if diff := cmp.Diff(want, s.order()); diff != "" {
		s.T.Errorf("what was noted (-want +got):\n%s", diff)
	}
}

// output returns the log of a worker.
func (s *site) output(worker string) string {
	s.T.Helper()
	text, err := os.ReadFile(filepath.Join(s.State, "logs", worker+".log"))
	if err != nil {
		s.T.Fatal(err)
	}
	return string(text)
}

func TestHooksRunInOrderAroundAWorker(t *testing.T) {
	t.Parallel()
	s := newHookSite(t, "")
	m := s.start()
	w := s.awaitUp(1).Worker(t, "shop-0")
	s.wantNoted("before begins", "before ends", "worker begins")
	s.KillWorker(w.PID)
	s.awaitNth("worker begins", 2)
	s.await("shop-0", "runs again", func(w harness.Worker) bool { return up(w) && w.Restarts == 1 })
	m.Stop()
	s.wantNoted("before begins", "before ends", "worker begins",
		"after begins", "after ends", "before begins", "before ends", "worker begins",
		"stop begins", "stop ends", "worker ends", "after begins", "after ends")
	hello := "hello shop-0 " + s.path("data")
	want := fmt.Sprintf(`TIME shop-0 incarnation 1: started by hsu-master
output of before: shop %[1]d %[1]d %[2]s ,
output of the worker, port %[1]d %[1]d
output of after: 0 %[1]d %[1]d %[2]s ,SIGKILL
TIME shop-0 incarnation 2: started by hsu-master
output of before: shop %[1]d %[1]d %[2]s ,
output of the worker, port %[1]d %[1]d
output of stop: shop-0 %[1]d %[1]d %[2]s ,
stop sees the worker alive
output of after: 0 %[1]d %[1]d %[2]s 0,
`, w.Port, hello)
	clock := regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ `)
	if diff := cmp.Diff(want, clock.ReplaceAllString(s.output("shop-0"), "TIME ")); diff != "" {
		t.Errorf("the worker's log (-want +got):\n%s", diff)
	}
	s.WantNothingLeft()
}

// A master is killed in the middle of each hook. The next one ends the rest of it before it runs it again.
func TestHooksAreRunAgainAfterAKillOfTheMaster(t *testing.T) {
	t.Parallel()
	s := newHookSite(t, "")
	for _, moment := range []string{"before", "stop", "after"} {
		s.hook(moment, "block")
	}
	again := func(m *harness.Master, moment string, nth int) *harness.Master {
		t.Helper()
		s.awaitNth(moment+" begins", nth)
		w := s.await("shop-0", "waits for "+moment, func(w harness.Worker) bool { return w.WaitingFor != "" })
		if !strings.HasSuffix(w.WaitingFor, " "+s.path("hook")) {
			t.Errorf("%s is waited for: %+v", moment, w)
		}
		m.Kill()
		plan := s.CLI("state", "plan", "--json").Stdout
		if !strings.Contains(plan, "its command that a crash has left is stopped first") {
			t.Errorf("the plan does not tell of the command %s:\n%s", moment, plan)
		}
		m = s.start()
		s.awaitNth(moment+" begins", nth+1)
		s.hook(moment, "")
		return m
	}
	m := again(s.start(), "before", 1)
	w := s.awaitUp(1).Worker(t, "shop-0")
	if w.Restarts != 0 || w.Incarnation != 1 {
		t.Errorf("a start that was cut off counts as a restart: %+v", w)
	}
	s.KillWorker(w.PID)
	m = again(m, "after", 1)
	s.awaitNth("worker begins", 2)
	s.awaitUp(1)
	m.Signal(syscall.SIGTERM)
	m = again(m, "stop", 1)
	s.awaitNth("worker begins", 3)
	s.awaitUp(1)
	m.Stop()
	s.wantNoted("before begins", "before begins", "before ends", "worker begins",
		"after begins", "after begins", "after ends", "before begins", "before ends", "worker begins",
		"stop begins", "stop begins", "stop ends", "worker ends", "after begins", "after ends",
		"before begins", "before ends", "worker begins",
		"stop begins", "stop ends", "worker ends", "after begins", "after ends")
	s.WantNothingLeft()
}

// A daemon of a hook has neither its environment nor its session, and the hook itself is dead. The next master finds it
// by the lease, and ends it before it runs the hook again.
func TestDaemonOfAHookIsEndedAfterAKillOfTheMaster(t *testing.T) {
	t.Parallel()
	for _, moment := range []string{"before", "stop", "after"} {
		t.Run(moment, func(t *testing.T) {
			t.Parallel()
			s := newHookSite(t, "")
			s.write("hook", `#!/bin/sh
for pid in $(cat "$NOTES/daemons" 2>/dev/null); do
	! grep -q '^State:.[RSDT]' "/proc/$pid/status" 2>/dev/null || echo "a daemon lives beside $1" >>"$NOTES/order"
done
if [ ! -e "$NOTES/$1" ]; then exit 0; fi
env -i /usr/bin/setsid /bin/sh -c 'echo $$ >>"$0"; exec >/dev/null 2>&1 sleep 1000000' "$NOTES/daemons" &
while [ ! -s "$NOTES/daemons" ]; do sleep 0.01; done
echo $$ >"$NOTES/pid"
echo "$1 begins" >>"$NOTES/order"
while [ -e "$NOTES/$1" ]; do sleep 0.02; done
`)
			s.hook(moment, "block")
			m := s.start()
			switch moment {
			case "stop":
				s.awaitUp(1)
				m.Signal(syscall.SIGTERM)
			case "after":
				s.KillWorker(s.awaitUp(1).Worker(t, "shop-0").PID)
			}
			s.awaitNth(moment+" begins", 1)
			daemon, leader := s.number("daemons"), s.number("pid")
			m.Kill()
			s.KillWorker(leader)
			// The last sleep of the hook may live for an instant.
			harness.WaitFor(t, fmt.Sprintf("the plan names daemon %d alone", daemon), func() error {
				plan := s.CLI("state", "plan", "--json").Stdout
				if !strings.Contains(plan, fmt.Sprintf("that a crash has left is stopped first (process %d)", daemon)) {
					return errors.New(plan)
				}
				return nil
			})
			s.hook(moment, "")
			m = s.start()
			s.awaitUp(1)
			m.Stop()
			if noted := s.order(); slices.ContainsFunc(noted, func(line string) bool {
				return strings.HasPrefix(line, "a daemon lives")
			}) {
				t.Errorf("a hook ran beside the daemon: %q", noted)
			}
			s.WantNothingLeft()
		})
	}
}

// number returns the number in a file that a hook has written.
func (s *site) number(name string) int {
	s.T.Helper()
	text, err := os.ReadFile(filepath.Join(s.Record, name))
	if err != nil {
		s.T.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		s.T.Fatal(err)
	}
	return n
}

func TestHooksThatFail(t *testing.T) {
	t.Parallel()
	s := newHookSite(t, `
  late:
    command: [./shop]
    start: {timeout: 300ms, before: [./hook, late]}
    restart: {policy: never}
    stop: {grace: 200ms}
  missing: {command: [./shop], start: {before: [./no-such-program]}, restart: {policy: never}}
`)
	s.hook("before", "fail")
	s.hook("late", "stay")
	m := s.start()
	failed := func(w harness.Worker) bool { return w.Status == "failed" }
	for worker, want := range map[string]string{
		"shop-0":    "restart budget 2/1h used up: start.before: exit code 3",
		"late-0":    "start.before: it did not end within 300ms",
		"missing-0": "start.before: stat " + s.path("no-such-program") + ": no such file or directory: name an",
	} {
		if w := s.await(worker, "has failed", failed); !strings.HasPrefix(w.Reason, want) || w.Incarnation != 0 {
			t.Errorf("%s = %+v, want it never started: %q", worker, w, want)
		}
	}
	if n := len(m.Logged("worker hook failed")); n != 5 {
		t.Errorf("%d failures of hooks were logged, want 5", n)
	}
	m.Stop()

	s.hook("before", "")
	s.hook("stop", "fail")
	s.hook("after", "fail")
	m = s.start()
	m.Stop() // the budget is used up
	s.write("hsu.yaml", hooked)
	s.write("shop", shop+"# another\n")
	m = s.start()
	s.await("shop-0", "runs", up)
	m.Stop()
	var reasons []string
	for _, line := range m.Logged("worker hook failed") {
		reasons = append(reasons, line.Reason)
	}
	if diff := cmp.Diff([]string{"stop.command: exit code 3", "stop.after: exit code 3"}, reasons); diff != "" {
		t.Errorf("failed hooks of the stop (-want +got):\n%s", diff)
	}
	noted := s.order()
	if !slices.Contains(noted, "worker ends") || slices.Contains(noted, "before has a twin") {
		t.Errorf("the worker was not asked to end: %q", noted)
	}
	s.WantNothingLeft()
}

// Hooks that hang do not delay the stop of a master beyond the grace.
func TestStopsWhileAHookHangs(t *testing.T) {
	t.Parallel()
	for moment, want := range map[string][]string{
		"before": {"before begins"},
		"stop": {
			"before begins", "before ends", "worker begins", "stop begins", "worker ends", "after begins", "after ends",
		},
		"after": {
			"before begins", "before ends", "worker begins", "stop begins", "stop ends", "worker ends", "after begins",
		},
	} {
		t.Run(moment, func(t *testing.T) {
			t.Parallel()
			s := newHookSite(t, "")
			s.write("hsu.yaml", strings.Replace(hooked, "grace: 20s", "grace: 3s", 1))
			s.hook(moment, "stay")
			m := s.start()
			if moment == "before" {
				s.awaitNth("before begins", 1)
			} else {
				s.awaitUp(1)
			}
			began := time.Now()
			m.Stop()
			if took := time.Since(began); took > harness.Patience/2 {
				t.Errorf("the stop took %s", took)
			}
			s.wantNoted(want...)
			s.WantNothingLeft()
		})
	}
}

// What a hook leaves behind is killed at its end, and no amount of its output stops it or is lost.
func TestHooksLeaveNothingBehindAndFloodTheLog(t *testing.T) {
	t.Parallel()
	s := newHookSite(t, "")
	s.write("hook", `#!/bin/sh
echo "$1 begins" >>"$NOTES/order"
setsid sh -c 'exec </dev/null >/dev/null 2>&1 3>&-; echo $$ >>"$NOTES/daemons"; exec sleep 1000000' &
while [ ! -s "$NOTES/daemons" ]; do sleep 0.01; done
seq -f "line %.0f of $1" 200000
echo "$1 ends" >>"$NOTES/order"
`)
	m := s.start()
	s.awaitUp(1)
	for _, p := range s.Processes() {
		if strings.Contains(p.Environ["HSU_WORKER_ID"], "/") {
			t.Errorf("a process of start.before lives: %v", p)
		}
	}
	m.Stop()
	daemons, _ := os.ReadFile(filepath.Join(s.Record, "daemons"))
	if n := len(strings.Fields(string(daemons))); n != 3 {
		t.Errorf("%d daemons were started, want 3", n)
	}
	s.wantNoted("before begins", "before ends", "worker begins", "stop begins", "stop ends", "worker ends",
		"after begins", "after ends")
	if out := s.output("shop-0"); !strings.HasSuffix(out, "line 200000 of after\n") {
		t.Errorf("the log ends with %q", out[max(0, len(out)-100):])
	}
	s.WantNothingLeft()
}

// A detach ends start.before, and the next master begins the start again.
func TestDetachDuringStartBefore(t *testing.T) {
	t.Parallel()
	s := newHookSite(t, "")
	s.hook("before", "block")
	m := s.start()
	s.awaitNth("before begins", 1)
	m.Signal(syscall.SIGUSR1)
	m.WantExit(0)
	s.WantNothingLeft()
	s.hook("before", "")
	m = s.start()
	if w := s.awaitUp(1).Worker(t, "shop-0"); w.Incarnation != 1 || w.Restarts != 0 {
		t.Errorf("the start that was cut off has cost something: %+v", w)
	}
	m.Stop()
	s.wantNoted("before begins", "before begins", "before ends", "worker begins",
		"stop begins", "stop ends", "worker ends", "after begins", "after ends")
	s.WantNothingLeft()
}

// The second signal ends the hooks of a stop that has a long grace.
func TestSecondSignalEndsHooks(t *testing.T) {
	t.Parallel()
	s := newHookSite(t, "")
	s.write("hsu.yaml", strings.Replace(hooked, "grace: 20s", "grace: 1h", 1))
	s.hook("stop", "stay")
	m := s.start()
	s.awaitUp(1)
	m.Signal(syscall.SIGINT)
	s.awaitNth("stop begins", 1)
	m.Signal(syscall.SIGINT)
	m.WantExit(0)
	s.WantNothingLeft()
}

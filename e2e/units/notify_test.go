//go:build e2e && linux

package units

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/store"
)

// say has a worker with the habit notifier send a text, and returns when it is sent.
func (s *site) say(id, text string) {
	s.T.Helper()
	said := s.path("record/" + id + ".said")
	_ = os.Remove(said)
	s.write("record/"+id+".new", text)
	if err := os.Rename(s.path("record/"+id+".new"), s.path("record/"+id+".say")); err != nil {
		s.T.Fatal(err)
	}
	harness.WaitFor(s.T, id+" sends", func() error {
		_, err := os.Stat(said)
		return err
	})
}

// newNotifySite returns a site whose units have workers with the habit notifier.
func newNotifySite(t *testing.T, units string) *site {
	t.Helper()
	s := newSite(t, map[string]string{"record/README": "", "hsu.yaml": `
x-notifier: &notifier
  kind: managed
  command: ["${UNIT}", -as, notifier, -record, "${RECORD}"]
  stop: {grace: 1s}
  restart: {backoff: {initial: 10ms, max: 20ms}}
  environment: {WORD: hunter2}
units:
` + units})
	s.environ = []string{"UNIT=" + harness.Programs.Unit, "RECORD=" + s.path("record")}
	return s
}

func TestNotifyDecidesAboutStartAndCalls(t *testing.T) {
	t.Parallel()
	s := newNotifySite(t, `
  told: {<<: *notifier, health: {type: notify, interval: 50ms}}
  served:
    <<: *notifier
    kind: integrated
    services: [proto.MyBusinessService]
    readiness: {type: notify, interval: 50ms}
    liveness: {type: process}
`)
	m := s.start()
	for _, id := range []string{"told-0", "served-0"} {
		s.await(id, "waits for READY=1", func(w harness.Worker) bool {
			return starting(w) && strings.Contains(w.WaitingFor, "READY=1")
		})
		s.say(id, "STATUS=loading hunter2\x1b[1m")
		s.await(id, "shows its status", func(w harness.Worker) bool {
			return starting(w) && w.StatusText == "loading $WORD[1m" && strings.Contains(w.WaitingFor, "loading $WORD")
		})
		s.say(id, "READY=1\nSTATUS=serving")
		w := s.await(id, "runs", up)
		if w.Probe != "notify" || w.StatusText != "serving" {
			t.Errorf("%s = %+v, want the probe notify and the status serving", id, w)
		}
	}
	before := s.await("served-0", "gets calls", harness.Worker.Running)
	s.say("served-0", "STOPPING=1")
	s.await("served-0", "gets no calls", func(w harness.Worker) bool { return !w.Ready && w.PID == before.PID })
	s.await("served-0", "is unhealthy", unhealthy)
	s.say("served-0", "READY=1")
	s.await("served-0", "gets calls again", func(w harness.Worker) bool { return w.Running() && w.PID == before.PID })
	if shown := s.CLI("worker", "list").Stdout + m.Log(); strings.Contains(shown, "hunter2") ||
		!strings.Contains(shown, "status serving") {
		t.Errorf("want the status and no secret:\n%s", shown)
	}
	m.Stop()
	s.WantNothingLeft()
}

func TestMissedWatchdogReplacesTheWorker(t *testing.T) {
	t.Parallel()
	s := newNotifySite(t, `
  told: {<<: *notifier, health: {type: notify, interval: 100ms, failures: 2}}
  quiet: {<<: *notifier, health: {type: notify, interval: 100ms, failures: 1}}
`)
	m := s.start()
	s.say("quiet-0", "READY=1")
	quiet := s.await("quiet-0", "runs", up)
	s.write("record/told-0.beat", "")
	s.say("told-0", "READY=1")
	before := s.await("told-0", "runs", up)
	if err := os.Remove(s.path("record/told-0.beat")); err != nil {
		t.Fatal(err)
	}
	s.await("told-0", "is replaced", func(w harness.Worker) bool {
		return starting(w) && w.PID != before.PID && w.Restarts == 1
	})
	if log := m.Log(); !strings.Contains(log, "its notifications: no WATCHDOG=1 for") {
		t.Errorf("the log does not name the missed notification:\n%s", log)
	}
	// One that has never sent WATCHDOG=1 is not held to it.
	if w := s.await("quiet-0", "runs", up); w.PID != quiet.PID {
		t.Errorf("quiet-0 = %+v, want it as it was: %+v", w, quiet)
	}
	m.Stop()
	s.WantNothingLeft()
}

// What workers tell while no master runs is lost without systemd. It harms none of them.
func TestNotifyAcrossACrash(t *testing.T) {
	t.Parallel()
	s := newNotifySite(t, `
  kept: {<<: *notifier, health: {type: notify, interval: 300ms, failures: 2}}
  silent: {<<: *notifier, health: {type: notify, interval: 300ms, failures: 2}}
  early: {<<: *notifier, health: {type: notify, interval: 300ms}}
  lost:
    <<: *notifier
    readiness: {type: notify}
    liveness: {type: process}
    start: {timeout: 5m}
    restart: {budget: {restarts: 0, within: 1m}, backoff: {initial: 10ms, max: 20ms}}
`)
	m := s.start()
	for _, id := range []string{"kept-0", "silent-0"} {
		s.write("record/"+id+".beat", "")
		s.say(id, "READY=1\nSTATUS=of the first master")
		s.await(id, "runs", up)
	}
	s.await("early-0", "starts", starting)
	s.await("lost-0", "starts", starting)
	before := s.Dump()
	s.killWatched(m, "kept-0", "silent-0")
	content, err := os.ReadFile(s.path("hsu.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("hsu.yaml", strings.Replace(string(content), "timeout: 5m", "timeout: 200ms", 1))
	if err := os.Remove(s.path("record/silent-0.beat")); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"early-0", "lost-0"} {
		s.say(id, "READY=1")
	}
	m = s.start()
	s.write("record/early-0.beat", "") // WATCHDOG=1 counts as READY=1 there
	w := s.await("early-0", "runs", up)
	if was := before.Worker(t, "early-0"); w.PID != was.PID || !w.Adopted {
		t.Errorf("early-0 = %+v, want it adopted with PID %d", w, was.PID)
	}
	w = s.await("silent-0", "is replaced", func(w harness.Worker) bool { return starting(w) && w.Restarts == 1 })
	if was := before.Worker(t, "silent-0"); w.PID == was.PID {
		t.Errorf("silent-0 = %+v, want another process", w)
	}
	w = s.await("lost-0", "is replaced", func(w harness.Worker) bool { return w.Incarnation == 2 })
	if w.Restarts != 0 {
		t.Errorf("lost-0 = %+v, want no restart of its budget", w)
	}
	if !strings.Contains(m.Log(), "worker READY may have been lost") {
		t.Errorf("the log does not say that READY may have been lost:\n%s", m.Log())
	}
	w = s.await("kept-0", "runs", up)
	if was := before.Worker(t, "kept-0"); w.PID != was.PID || w.Restarts != 0 {
		t.Errorf("kept-0 = %+v, want it as it was: %+v", w, was)
	}
	s.say("kept-0", "STATUS=of the second master")
	s.await("kept-0", "is heard", func(w harness.Worker) bool { return w.StatusText == "of the second master" })
	m.Stop()
	s.WantNothingLeft()
}

// killWatched kills the master when it has recorded that the workers send WATCHDOG=1.
func (s *site) killWatched(m *harness.Master, ids ...string) {
	s.T.Helper()
	harness.WaitFor(s.T, "WATCHDOG=1 is recorded", func() error {
		m.Kill()
		state, err := store.ReadSnapshot(s.State)
		for _, w := range state.Workers {
			i := w.Instance
			if slices.Contains(ids, w.ID) && (i == nil || i.Notify == nil || !i.Notify.Watched) {
				err = fmt.Errorf("it is not: %+v", i)
			}
		}
		if err != nil {
			m = s.start()
		}
		return err
	})
}

//go:build e2e && linux

package units

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// often makes faults of the example noticed soon.
var often = []string{
	"{interval: 2s, timeout: 1s}", "{interval: 300ms, timeout: 2s, failures: 2, busy_limit: 3s}",
}

func TestEachOfTheSixProgramsIsReplacedWhenItIsKilled(t *testing.T) {
	t.Parallel()
	s := newSix(t)
	m := s.start()
	before := s.awaitUp(workersOfSix).Instances()
	for _, was := range before {
		s.KillWorker(was.PID)
	}
	for id, was := range before {
		w := s.await(id, "is replaced", func(w harness.Worker) bool { return up(w) && w.PID != was.PID })
		if w.Restarts != 1 || w.LastExit == nil || w.LastExit.Signal == nil || *w.LastExit.Signal != "SIGKILL" ||
			w.Port != was.Port {
			t.Errorf("%s = %+v, last exit %+v, want a restart, SIGKILL, port %d", id, w, w.LastExit, was.Port)
		}
	}
	d := s.awaitUp(workersOfSix)
	s.wantNoTwin(d)
	s.wantAnswers(d)
	m.Stop()
	s.WantNothingLeft()
}

func TestEachOfTheSixProgramsIsKeptWhileItIsSuspended(t *testing.T) {
	t.Parallel()
	s := newSix(t, often...)
	m := s.start()
	d := s.awaitUp(workersOfSix)
	want := d.Instances()
	for _, w := range d.Workers {
		s.SignalWorker(w.PID, syscall.SIGSTOP)
	}
	s.AwaitWorkers(workersOfSix+1, "are said to be suspended", func(w harness.Worker) bool {
		hint := fmt.Sprintf("kill -CONT %d", w.PID)
		return w.ID == nightly || w.Status == "unhealthy" && strings.Contains(w.Reason, hint)
	})
	for _, w := range d.Workers {
		s.SignalWorker(w.PID, syscall.SIGCONT)
	}
	after := s.awaitUp(workersOfSix)
	after.WantInstances(t, want)
	s.wantAnswers(after)
	m.Stop()
	s.WantNothingLeft()
}

// A program that computes without answering is busy: it is ended after busy_limit, not before.
func TestSpinningProgramIsReplacedAfterItsBusyLimit(t *testing.T) {
	t.Parallel()
	s := newSix(t, append(often, "stop: {grace: 5s}", "stop: {grace: 1s}")...)
	m := s.start()
	before := s.awaitUp(workersOfSix).Instances()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	if _, err := get(ctx, s.shop, "/spin"); err == nil {
		t.Error("the shop has answered")
	}
	s.await("shop-0", "is replaced", func(w harness.Worker) bool { return up(w) && w.PID != before["shop-0"].PID })
	if took := time.Since(began); took < 3*time.Second {
		t.Errorf("it was replaced after %s, before its busy_limit", took)
	}
	after := s.awaitUp(workersOfSix)
	s.wantAnswers(after)
	before["shop-0"] = after.Instances()["shop-0"]
	after.WantInstances(t, before) // the others
	m.Stop()
	s.WantNothingLeft()
}

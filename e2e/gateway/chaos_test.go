//go:build e2e && linux

package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

// figures are the master's statistics of an endpoint, in the JSON that scripts read.
type figures struct {
	Calls    int            `json:"calls"`
	InFlight int            `json:"in_flight"`
	Failures map[string]int `json:"failures"`
	Retries  int            `json:"retries"`
}

// endpoints returns the endpoints of a service in "service list --json", by worker.
func endpoints(h *harness.Host, service string) map[string]figures {
	h.T.Helper()
	r := h.CLI("service", "list", "--json")
	if r.Code != 0 {
		h.T.Fatalf("service list: exit code %d: %s", r.Code, r.Stderr)
	}
	var list struct {
		Services []struct {
			Name      string `json:"name"`
			Endpoints []struct {
				Worker  string  `json:"worker"`
				Figures figures `json:"figures"`
			} `json:"endpoints"`
		} `json:"services"`
	}
	if err := json.Unmarshal([]byte(r.Stdout), &list); err != nil {
		h.T.Fatalf("service list: %v\n%s", err, r.Stdout)
	}
	byWorker := map[string]figures{}
	for _, s := range list.Services {
		for _, e := range s.Endpoints {
			if s.Name == service {
				byWorker[e.Worker] = e.Figures
			}
		}
	}
	return byWorker
}

// wantCounts compares the endpoints' statistics with the workers' notes.
func wantCounts(h *harness.Host, notes string) {
	h.T.Helper()
	// A call that its client has given up ends at the master a moment later.
	harness.WaitFor(h.T, "no call is in flight", func() error {
		for worker, e := range endpoints(h, echoService) {
			if e.InFlight != 0 {
				return fmt.Errorf("%s has %d", worker, e.InFlight)
			}
		}
		return nil
	})
	_, byWorker := handled(h.T, notes)
	for worker, e := range endpoints(h, echoService) {
		failed := e.Retries
		for _, n := range e.Failures {
			failed += n
		}
		own := byWorker[worker]
		h.T.Logf("%s has handled %d calls, was sent %d, and %d of them have failed or went on to another",
			worker, own, e.Calls, failed)
		if e.Calls < own || e.Calls-failed > own || e.InFlight != 0 {
			h.T.Errorf("%s has handled %d calls, and the master counts %+v", worker, own, e)
		}
		delete(byWorker, worker)
	}
	if len(byWorker) > 0 {
		h.T.Errorf("workers have handled calls of which the master counts none: %v", byWorker)
	}
}

// visitor is a registered endpoint that offers the echo service for a while.
type visitor struct {
	address string
	mu      sync.Mutex
	handled map[string]int
}

func newVisitor(t *testing.T) *visitor {
	t.Helper()
	v := &visitor{handled: map[string]int{}}
	server := grpc.NewServer()
	echo.Register(server, func(_ context.Context, message string) (string, error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.handled[message]++
		return message, nil
	})
	v.address = serve(t, server)
	return v
}

// Workers are killed, drained, replaced and hung at random during calls, and a registered endpoint comes and goes.
// Only calls that allow it are handled twice; no call fails that could have been retried on another worker; and the
// counts are correct. SEED=N repeats a run.
func TestCallsWhileWorkersComeAndGo(t *testing.T) {
	t.Parallel()
	seed, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	h := harness.NewHost(t)
	const count, callers = 4, 16
	flags, notes := noting(h, "echo", count)
	h.Flags = append(flags, "--worker-service", echoService, "--restart-backoff", "1ms", "--restart-budget", "1000/5m")
	m := h.Start()
	h.AwaitRunning(count)
	awaitService(h, echoService, count)
	outside := newVisitor(t)
	// A call waits for a hung worker, and for a loaded machine, but no longer than this.
	const timeout = harness.Patience / 2
	unmarked := startCrowd(h, "callers", callers, false, timeout)
	marked := startCrowd(h, "callers who may be tried again", callers/4, true, timeout)

	// The master may not have noticed the end of a process yet when the process is gone.
	replaced := func(w harness.Worker) {
		t.Helper()
		h.AwaitWorkers(count, "run, one of them anew", func(now harness.Worker) bool {
			return now.Running() && (now.ID != w.ID || now.Incarnation > w.Incarnation)
		})
	}

	// The number of acceptable failures of calls that must not be retried: one per caller each time a worker
	// disappears without notice, since each has one call in flight, and as many again for calls sent before the
	// loss was noticed.
	actions := []struct {
		name           string
		act            func(w harness.Worker)
		most, ofMarked int
		allowed        []codes.Code
	}{
		{name: "drained and replaced", act: func(w harness.Worker) {
			h.SignalWorker(w.PID, syscall.SIGTERM) // it sends GOAWAY, and finishes its calls
			replaced(w)
		}},
		{name: "joined by one from outside, for a while", act: func(harness.Worker) {
			register(h, offer{echoService, outside.address})
			unmarked.awaitMore(100)
			if r := h.CLI("service", "deregister", echoService, outside.address); r.Code != 0 {
				t.Errorf("deregister: exit code %d: %s", r.Code, r.Stderr)
			}
		}},
		{
			name: "killed", act: func(w harness.Worker) { h.KillWorker(w.PID); replaced(w) }, most: 2 * callers,
			allowed: []codes.Code{codes.Unavailable},
		},
		{name: "hung", act: func(w harness.Worker) {
			h.SignalWorker(w.PID, syscall.SIGSTOP)
			unmarked.awaitMore(20)
			time.Sleep(1500 * time.Millisecond) // the hang
			h.SignalWorker(w.PID, syscall.SIGCONT)
		}, most: 4 * callers, ofMarked: callers, allowed: []codes.Code{codes.DeadlineExceeded, codes.Unavailable}},
	}
	// Each action once, in random order, and then some more.
	order := random.Perm(len(actions))
	for range 6 {
		order = append(order, random.IntN(len(actions)))
	}
	for _, i := range order {
		a := actions[i]
		w := h.AwaitRunning(count).Workers[random.IntN(count)]
		unmarked.awaitMore(50)
		unmarked.wantFailures("before "+w.ID+" is "+a.name, 0)
		marked.wantFailures("before "+w.ID+" is "+a.name, 0)
		t.Logf("%s is %s", w.ID, a.name)
		a.act(w)
		h.AwaitRunning(count)
		awaitService(h, echoService, count)
		unmarked.awaitMore(50)
		if a.most > 0 {
			unmarked.awaitEachCaller()
			marked.awaitEachCaller()
		}
		unmarked.wantFailures("after "+w.ID+" was "+a.name, a.most, a.allowed...)
		marked.wantFailures("after "+w.ID+" was "+a.name, a.ofMarked, a.allowed...)
	}
	unmarked.stop()
	marked.stop()
	times, _ := handled(t, notes)
	for id, n := range outside.handled {
		times[id] += n
	}
	if len(outside.handled) == 0 {
		t.Error("the endpoint from outside got no call")
	}
	unmarked.wantHandled(times)
	marked.wantHandled(times)
	wantCounts(h, notes)
	m.Stop()
	h.WantNothingLeft()
}

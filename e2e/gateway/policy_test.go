//go:build e2e && linux

package gateway

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

// governed returns a host whose master has n echo units that note their requests, and applies option as
// --service-option to their service.
func governed(t *testing.T, n int, option string) (h *harness.Host, notes string) {
	t.Helper()
	h = harness.NewHost(t)
	flags, notes := noting(h, "echo", n)
	h.Flags = append(flags, "--worker-service", echoService, "--service-option", echoService+":"+option)
	return h, notes
}

// echoOnce calls the unit once through the master, with metadata.
func echoOnce(h *harness.Host, conn grpc.ClientConnInterface, message string, pairs ...string) error {
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(h.T.Context(), pairs...), harness.Patience)
	defer cancel()
	return echo.Call(ctx, conn, message)
}

func TestCallsWithOneKeyGoToOneWorkerAlsoAfterACrashOfTheMaster(t *testing.T) {
	t.Parallel()
	const users = 24
	h, notes := governed(t, 3, "balance=affinity,key=user-id")
	homes := map[string]string{} // of the users
	for round := range 2 {
		m := h.Start()
		h.AwaitRunning(3)
		awaitService(h, echoService, 3)
		conn := h.Dial()
		for user := range users {
			_, before := handled(t, notes)
			const calls = 5
			for range calls {
				if err := echoOnce(h, conn, "x", "user-id", fmt.Sprint(user)); err != nil {
					t.Errorf("round %d, user %d: %v", round, user, err)
				}
			}
			_, after := handled(t, notes)
			for worker, n := range after {
				if n -= before[worker]; n == 0 {
					continue
				}
				key := fmt.Sprint(user)
				if home := homes[key]; n != calls || home != "" && home != worker {
					t.Errorf("round %d: %d of %d calls of user %d went to %s, before to %q",
						round, n, calls, user, worker, home)
				}
				homes[key] = worker
			}
		}
		if round == 0 {
			m.Kill()
		} else {
			m.Stop()
		}
	}
	if used := slices.Compact(slices.Sorted(maps.Values(homes))); len(used) != 3 {
		t.Errorf("all users are at %v, want them spread", used)
	}
	h.WantNothingLeft()
}

func TestRoundRobinGivesEachWorkerAsMany(t *testing.T) {
	t.Parallel()
	h, notes := governed(t, 3, "balance=round-robin")
	m := h.Start()
	h.AwaitRunning(3)
	m.Kill()
	m = h.Start() // for the new master no worker is fresh; a fresh one would get fewer calls
	h.AwaitRunning(3)
	awaitService(h, echoService, 3)
	conn := h.Dial()
	for i := range 300 {
		if err := echoOnce(h, conn, "x"); err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	m.Stop()
	_, byWorker := handled(t, notes)
	for i := range 3 {
		if n := byWorker[fmt.Sprintf("worker-%d", i)]; n < 99 || n > 101 {
			t.Errorf("worker-%d had %d of 300 calls, want a third", i, n)
		}
	}
	h.WantNothingLeft()
}

// The endpoint answers when the test allows it, so that calls are certainly in flight.
func TestCallBeyondTheServicesLimitIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	const limit = 3
	came, goOn := make(chan struct{}, limit+1), make(chan struct{})
	server := grpc.NewServer()
	echo.Register(server, func(_ context.Context, message string) (string, error) {
		came <- struct{}{}
		<-goOn
		return message, nil
	})
	at := serve(t, server)
	release := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(release)
	h := harness.NewHost(t, "--service-option", fmt.Sprintf("%s:max-in-flight=%d", echoService, limit))
	m := h.Start()
	register(h, offer{echoService, at})
	conn := h.Dial()
	var held sync.WaitGroup
	for range limit {
		held.Go(func() {
			if err := echoOnce(h, conn, "held"); err != nil {
				t.Errorf("a call within the limit: %v", err)
			}
		})
		select {
		case <-came:
		case <-time.After(harness.Patience):
			t.Fatal("a call within the limit has not come to the endpoint")
		}
	}
	if err := echoOnce(h, conn, "too many"); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("call %d at once: %v, want RESOURCE_EXHAUSTED", limit+1, err)
	}
	release()
	held.Wait()
	if err := echoOnce(h, conn, "there is room"); err != nil {
		t.Error(err)
	}
	m.Stop()
}

func TestMessageBeyondTheServicesLimitIsRefused(t *testing.T) {
	t.Parallel()
	h, notes := governed(t, 1, "max-message=64KiB")
	m := h.Start()
	h.AwaitRunning(1)
	awaitService(h, echoService, 1)
	conn := h.Dial()
	const frame = 4 // the overhead of StringValue for a string of this length
	for _, size := range []int{64<<10 - frame, 64<<10 - frame + 1, 1 << 20} {
		want := codes.OK
		if size > 64<<10-frame {
			want = codes.ResourceExhausted
		}
		if err := echoOnce(h, conn, strings.Repeat("x", size)); status.Code(err) != want {
			t.Errorf("%d bytes: %v, want %v", size, err, want)
		}
	}
	h.Ask(strings.Repeat("x", 1<<20)) // of another service
	m.Stop()
	if times, _ := handled(t, notes); len(times) != 1 {
		t.Errorf("the unit has handled %d requests, want the one within the limit", len(times))
	}
	h.WantNothingLeft()
}

//go:build e2e && linux

package e2e

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

	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

// governed returns a host whose master has n echo units that note their requests, and applies option as
// --service-option to their service.
func governed(t *testing.T, n int, option string) (h *host, notes string) {
	t.Helper()
	h = newHost(t)
	flags, notes := h.noting("echo", n)
	h.flags = append(flags, "--worker-service", echoService, "--service-option", echoService+":"+option)
	return h, notes
}

// echo calls the unit once through the master, with metadata.
func (h *host) echo(conn grpc.ClientConnInterface, message string, pairs ...string) error {
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(h.t.Context(), pairs...), patience)
	defer cancel()
	return callEcho(ctx, conn, message)
}

func TestCallsWithOneKeyGoToOneWorkerAlsoAfterACrashOfTheMaster(t *testing.T) {
	t.Parallel()
	const users = 24
	h, notes := governed(t, 3, "balance=affinity,key=user-id")
	homes := map[string]string{} // of the users
	for round := range 2 {
		m := h.start()
		h.awaitRunning(3)
		h.awaitService(echoService, 3)
		conn := h.dial()
		for user := range users {
			_, before := handled(t, notes)
			const calls = 5
			for range calls {
				if err := h.echo(conn, "x", "user-id", fmt.Sprint(user)); err != nil {
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
			m.kill()
		} else {
			m.stop()
		}
	}
	if used := slices.Compact(slices.Sorted(maps.Values(homes))); len(used) != 3 {
		t.Errorf("all users are at %v, want them spread", used)
	}
	h.wantNothingLeft()
}

func TestRoundRobinGivesEachWorkerAsMany(t *testing.T) {
	t.Parallel()
	h, notes := governed(t, 3, "balance=round-robin")
	m := h.start()
	h.awaitRunning(3)
	m.kill()
	m = h.start() // for the new master no worker is fresh; a fresh one would get fewer calls
	h.awaitRunning(3)
	h.awaitService(echoService, 3)
	conn := h.dial()
	for i := range 300 {
		if err := h.echo(conn, "x"); err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	m.stop()
	_, byWorker := handled(t, notes)
	for i := range 3 {
		if n := byWorker[fmt.Sprintf("worker-%d", i)]; n < 99 || n > 101 {
			t.Errorf("worker-%d had %d of 300 calls, want a third", i, n)
		}
	}
	h.wantNothingLeft()
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
	h := newHost(t, "--service-option", fmt.Sprintf("%s:max-in-flight=%d", echoService, limit))
	m := h.start()
	h.register(offer{echoService, at})
	conn := h.dial()
	var held sync.WaitGroup
	for range limit {
		held.Go(func() {
			if err := h.echo(conn, "held"); err != nil {
				t.Errorf("a call within the limit: %v", err)
			}
		})
		select {
		case <-came:
		case <-time.After(patience):
			t.Fatal("a call within the limit has not come to the endpoint")
		}
	}
	if err := h.echo(conn, "too many"); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("call %d at once: %v, want RESOURCE_EXHAUSTED", limit+1, err)
	}
	release()
	held.Wait()
	if err := h.echo(conn, "there is room"); err != nil {
		t.Error(err)
	}
	m.stop()
}

func TestMessageBeyondTheServicesLimitIsRefused(t *testing.T) {
	t.Parallel()
	h, notes := governed(t, 1, "max-message=64KiB")
	m := h.start()
	h.awaitRunning(1)
	h.awaitService(echoService, 1)
	conn := h.dial()
	const frame = 4 // the overhead of StringValue for a string of this length
	for _, size := range []int{64<<10 - frame, 64<<10 - frame + 1, 1 << 20} {
		want := codes.OK
		if size > 64<<10-frame {
			want = codes.ResourceExhausted
		}
		if err := h.echo(conn, strings.Repeat("x", size)); status.Code(err) != want {
			t.Errorf("%d bytes: %v, want %v", size, err, want)
		}
	}
	h.ask(strings.Repeat("x", 1<<20)) // of another service
	m.stop()
	if times, _ := handled(t, notes); len(times) != 1 {
		t.Errorf("the unit has handled %d requests, want the one within the limit", len(times))
	}
	h.wantNothingLeft()
}

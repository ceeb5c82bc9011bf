//go:build e2e && linux

package state

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/e2e/harness"
)

// Faults of the machine: the state cannot be written, or the kernel refuses a resource to the master. In every
// case, no acknowledged request is lost, the workers live on, and after the fault everything is as before without
// any intervention.

// outage is a time in which the state cannot be written.
type outage struct {
	reason string // error that callers get
	// grows means that only writes that make the state grow are refused.
	grows bool
	begin func(*harness.Master)
	end   func()
	again func() *harness.Master // starts a master during the outage; nil means the usual start
}

// steady is the number of workers, the first ones of a host under a fault, that run continuously.
const steady = 3

// restless returns flags for steady workers and a number of workers that exit at once after each start, so that the
// registry grows.
func restless(h *harness.Host) []string {
	flags := h.Units(slices.Concat(slices.Repeat([]string{"plain"}, steady), slices.Repeat([]string{"exits"}, 10))...)
	return append(flags, "--restart-backoff", "1ms", "--restart-budget", "10/5m")
}

// survive runs the test twice: the master lives through the outage, or is killed during it and restarted. prepare
// returns the outage on this host.
func survive(t *testing.T, prepare func(*harness.Host) outage) {
	t.Parallel()
	for name, kill := range map[string]bool{"the master lives": false, "the master is killed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := harness.NewHost(t)
			surviveOnce(h, prepare(h), kill)
		})
	}
}

func surviveOnce(h *harness.Host, o outage, kill bool) {
	h.T.Helper()
	m := h.Start()
	before := awaitSteady(h, harness.Worker.Running)
	load := h.StartLoad(8)
	load.AwaitMore(100)

	o.begin(m)
	awaitOutage(h, m, o)
	wantOutage(h, load, o, before)
	h.KillWorker(before.Workers[0].PID)
	wantOutage(h, load, o, before)
	if kill {
		m.Kill()
		if o.again == nil {
			m = h.Start()
		} else {
			m = o.again()
		}
		awaitOutage(h, m, o)
		wantOutage(h, load, o, before)
	}
	o.end()
	load.AwaitMore(100)
	// A worker that died during the outage has only paid for its death.
	after := awaitSteady(h, harness.Worker.Running)
	wantOnlyRestarted(h, before, after, before.Workers[0].ID)
	for i, w := range after.Workers {
		if w.Adopted != (kill && i > 0) {
			h.T.Errorf("%s is adopted: %t", w.ID, w.Adopted)
		}
	}
	load.Stop()
	wantCounted(h, load)
	if !kill { // else the state may have been read only when it could be written again
		for _, kind := range []string{"state-failed", "state-repaired"} {
			harness.WaitFor(h.T, "the event "+kind, func() error {
				if r := h.CLI("events", "--type", kind); r.Stdout == "" {
					return fmt.Errorf("%+v", r)
				}
				return nil
			})
		}
	}
	m.Stop()
	h.WantNothingLeft()
}

// awaitSteady returns the dump, with the steady workers only, in which each of them passes.
func awaitSteady(h *harness.Host, pass func(harness.Worker) bool) (d harness.Dump) {
	h.T.Helper()
	harness.WaitFor(h.T, "the steady workers run", func() (err error) {
		if d, err = h.TryDump(); err != nil {
			return err
		}
		d.Workers = d.Workers[:min(steady, len(d.Workers))]
		for _, w := range d.Workers {
			if !pass(w) {
				return fmt.Errorf("%+v", w)
			}
		}
		return nil
	})
	return d
}

// awaitOutage returns when requests are refused permanently, and lets the registry grow until then if the outage
// requires that. One failed write is not enough: freed space may then suffice to rewrite the state.
func awaitOutage(h *harness.Host, m *harness.Master, o outage) {
	h.T.Helper()
	harness.WaitFor(h.T, "the state cannot be written anew either", func() error {
		if o.grows {
			growUntilRefused(h, o.reason)
		}
		awaitRefusal(h, o.reason)
		log := m.Log()
		if strings.LastIndex(log, "state repaired") >= strings.LastIndex(log, "state repair failed") {
			return errors.New("it may still be")
		}
		return nil
	})
}

// growUntilRefused registers one service after another, at an address without an endpoint.
func growUntilRefused(h *harness.Host, reason string) {
	h.T.Helper()
	conn, err := grpc.NewClient("unix://"+filepath.Join(h.State, "run", "admin.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		h.T.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	registry, endpoint := adminpb.NewRegistryClient(conn), harness.Loopback(harness.FreePort(h.T))
	const most = 20_000 // some MiB
	for range most {
		ctx, cancel := context.WithTimeout(h.T.Context(), harness.Patience)
		request := &adminpb.RegisterRequest{
			Service: "grown.S" + rand.Text() + strings.Repeat(".more", 30), Address: endpoint,
		}
		_, err = registry.Register(ctx, request, grpc.WaitForReady(true))
		cancel()
		if refused(err, reason) {
			return
		}
		if err != nil {
			h.T.Fatalf("register a service: %v, want UNAVAILABLE and %q", err, reason)
		}
	}
	h.T.Fatalf("%d registrations have found a place", most)
}

// awaitRefusal returns when a request is refused for the reason.
func awaitRefusal(h *harness.Host, reason string) {
	h.T.Helper()
	client := proto.NewMyBusinessServiceClient(h.Dial())
	harness.WaitFor(h.T, "requests are refused: "+reason, func() error {
		ctx, cancel := context.WithTimeout(h.T.Context(), time.Second)
		defer cancel()
		_, err := client.ProcessData(ctx, &proto.ProcessRequest{Data: "refuse me"}, grpc.WaitForReady(true))
		if refused(err, reason) {
			return nil
		}
		return fmt.Errorf("the answer is %w", err)
	})
}

func refused(err error, reason string) bool {
	return status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), reason)
}

// wantOutage checks the visible state while it cannot be written: callers and operators get the reason, and workers
// that were not killed answer directly.
func wantOutage(h *harness.Host, load *harness.Load, o outage, before harness.Dump) {
	h.T.Helper()
	load.ForgetFailures() // from before the outage
	counted, told := h.Dump().ProcessedCount, 0
	harness.WaitFor(h.T, "callers are refused", func() error {
		for failure, times := range load.TakeFailures() {
			if !strings.Contains(failure, "code = Unavailable") || !strings.Contains(failure, o.reason) {
				h.T.Errorf("%d callers got %q, want UNAVAILABLE and %q", times, failure, o.reason)
			}
			told += times
		}
		if told < 50 {
			return fmt.Errorf("%d were told", told)
		}
		return nil
	})
	// No request that was not counted is acknowledged.
	if more := h.Dump().ProcessedCount - counted; more != 0 {
		h.T.Errorf("%d requests were acknowledged while nothing could be written", more)
	}
	if r := h.CLI("status"); r.Code != 1 || !strings.Contains(r.Stdout, "the state cannot be written") ||
		!strings.Contains(r.Stdout, o.reason) {
		h.T.Errorf("status: exit code %d, %q, want that and why the state cannot be written", r.Code, r.Stdout)
	}
	for _, w := range before.Workers {
		if harness.StartTicks(w.PID) != 0 {
			harness.WorkerStatus(h.T, w.Port)
		} else if w.ID != before.Workers[0].ID {
			h.T.Errorf("%s, process %d, did not live on", w.ID, w.PID)
		}
	}
}

// wantOnlyRestarted checks that the worker was restarted once, and that the others are unchanged.
func wantOnlyRestarted(h *harness.Host, before, after harness.Dump, id string) {
	h.T.Helper()
	want, got := before.Instances(), after.Instances()
	if w := after.Worker(h.T, id); w.Incarnation <= want[id].Incarnation || w.Restarts != want[id].Restarts+1 {
		h.T.Errorf("%s = %+v, want it restarted once", id, w)
	}
	delete(want, id)
	delete(got, id)
	if diff := cmp.Diff(want, got); diff != "" {
		h.T.Errorf("the other workers are not what they were (-before +after):\n%s", diff)
	}
}

// wantCounted compares the count with the callers' own counts.
func wantCounted(h *harness.Host, load *harness.Load) {
	h.T.Helper()
	acked, sent := load.Acked.Load(), load.Sent.Load()
	if d := h.Dump(); d.ProcessedCount < acked || d.ProcessedCount > sent {
		h.T.Errorf("processed_count = %d, want it between %d acknowledged and %d sent", d.ProcessedCount, acked, sent)
	}
	h.T.Logf("%d sent, %d acknowledged", sent, acked)
}

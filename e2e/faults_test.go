//go:build e2e && linux

package e2e

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
)

// Faults of the machine: the state cannot be written, or the kernel refuses a resource to the master. In every
// case, no acknowledged request is lost, the workers live on, and after the fault everything is as before without
// any intervention.

// outage is a time in which the state cannot be written.
type outage struct {
	reason string // error that callers get
	// grows means that only writes that make the state grow are refused.
	grows bool
	begin func(*master)
	end   func()
	again func() *master // starts a master during the outage; nil means the usual start
}

// steady is the number of workers, the first ones of a host under a fault, that run continuously.
const steady = 3

// restless returns flags for steady workers and a number of workers that exit at once after each start, so that the
// registry grows.
func (h *host) restless() []string {
	flags := h.units(slices.Concat(slices.Repeat([]string{"plain"}, steady), slices.Repeat([]string{"exits"}, 10))...)
	return append(flags, "--restart-backoff", "1ms", "--restart-budget", "10/5m")
}

// survive runs the test twice: the master lives through the outage, or is killed during it and restarted. prepare
// returns the outage on this host.
func survive(t *testing.T, prepare func(*host) outage) {
	t.Parallel()
	for name, kill := range map[string]bool{"the master lives": false, "the master is killed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.survive(prepare(h), kill)
		})
	}
}

func (h *host) survive(o outage, kill bool) {
	h.t.Helper()
	m := h.start()
	before := h.awaitSteady(running)
	load := h.startLoad(8)
	load.awaitMore(100)

	o.begin(m)
	h.awaitOutage(m, o)
	h.wantOutage(load, o, before)
	h.killWorker(before.Workers[0].PID)
	h.wantOutage(load, o, before)
	if kill {
		m.kill()
		if o.again == nil {
			m = h.start()
		} else {
			m = o.again()
		}
		h.awaitOutage(m, o)
		h.wantOutage(load, o, before)
	}
	o.end()
	load.awaitMore(100)
	// A worker that died during the outage has only paid for its death.
	after := h.awaitSteady(running)
	h.wantOnlyRestarted(before, after, before.Workers[0].ID)
	for i, w := range after.Workers {
		if w.Adopted != (kill && i > 0) {
			h.t.Errorf("%s is adopted: %t", w.ID, w.Adopted)
		}
	}
	load.stop()
	h.wantCounted(load)
	m.stop()
	h.wantNothingLeft()
}

// awaitSteady returns the dump, with the steady workers only, in which each of them passes.
func (h *host) awaitSteady(pass func(dump, worker) bool) (d dump) {
	h.t.Helper()
	waitFor(h.t, "the steady workers run", func() (err error) {
		if d, err = h.tryDump(); err != nil {
			return err
		}
		d.Workers = d.Workers[:min(steady, len(d.Workers))]
		for _, w := range d.Workers {
			if !pass(d, w) {
				return fmt.Errorf("%+v", w)
			}
		}
		return nil
	})
	return d
}

// awaitOutage returns when requests are refused permanently, and lets the registry grow until then if the outage
// requires that. One failed write is not enough: freed space may then suffice to rewrite the state.
func (h *host) awaitOutage(m *master, o outage) {
	h.t.Helper()
	waitFor(h.t, "the state cannot be written anew either", func() error {
		if o.grows {
			h.growUntilRefused(o.reason)
		}
		h.awaitRefusal(o.reason)
		log := m.log()
		if strings.LastIndex(log, "state written anew") >= strings.LastIndex(log, "state still cannot be written") {
			return errors.New("it may still be")
		}
		return nil
	})
}

// growUntilRefused registers one service after another, at an address without an endpoint.
func (h *host) growUntilRefused(reason string) {
	h.t.Helper()
	conn, err := grpc.NewClient("unix://"+filepath.Join(h.state, "run", "admin.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	registry, endpoint := adminpb.NewRegistryClient(conn), address(freePort(h.t))
	const most = 20_000 // some MiB
	for range most {
		ctx, cancel := context.WithTimeout(h.t.Context(), patience)
		request := &adminpb.RegisterRequest{
			Service: "grown.S" + rand.Text() + strings.Repeat(".more", 30), Address: endpoint,
		}
		_, err = registry.Register(ctx, request, grpc.WaitForReady(true))
		cancel()
		if refused(err, reason) {
			return
		}
		if err != nil {
			h.t.Fatalf("register a service: %v, want UNAVAILABLE and %q", err, reason)
		}
	}
	h.t.Fatalf("%d registrations have found a place", most)
}

// awaitRefusal returns when a request is refused for the reason.
func (h *host) awaitRefusal(reason string) {
	h.t.Helper()
	client := proto.NewMyBusinessServiceClient(h.dial())
	waitFor(h.t, "requests are refused: "+reason, func() error {
		ctx, cancel := context.WithTimeout(h.t.Context(), time.Second)
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
func (h *host) wantOutage(load *load, o outage, before dump) {
	h.t.Helper()
	load.forgetFailures() // from before the outage
	counted, told := h.dump().ProcessedCount, 0
	waitFor(h.t, "callers are refused", func() error {
		for failure, times := range load.takeFailures() {
			if !strings.Contains(failure, "code = Unavailable") || !strings.Contains(failure, o.reason) {
				h.t.Errorf("%d callers got %q, want UNAVAILABLE and %q", times, failure, o.reason)
			}
			told += times
		}
		if told < 50 {
			return fmt.Errorf("%d were told", told)
		}
		return nil
	})
	// No request that was not counted is acknowledged.
	if more := h.dump().ProcessedCount - counted; more != 0 {
		h.t.Errorf("%d requests were acknowledged while nothing could be written", more)
	}
	if r := h.cli("status"); r.code != 1 || !strings.Contains(r.stdout, "the state cannot be written") ||
		!strings.Contains(r.stdout, o.reason) {
		h.t.Errorf("status: exit code %d, %q, want that and why the state cannot be written", r.code, r.stdout)
	}
	for _, w := range before.Workers {
		if born(h.t, w.PID) != 0 {
			own(h.t, w.Port)
		} else if w.ID != before.Workers[0].ID {
			h.t.Errorf("%s, process %d, did not live on", w.ID, w.PID)
		}
	}
}

// wantOnlyRestarted checks that the worker was restarted once, and that the others are unchanged.
func (h *host) wantOnlyRestarted(before, after dump, id string) {
	h.t.Helper()
	want, got := before.instances(h.t), after.instances(h.t)
	if w := after.worker(h.t, id); w.Incarnation <= want[id].Incarnation || w.Restarts != want[id].Restarts+1 {
		h.t.Errorf("%s = %+v, want it restarted once", id, w)
	}
	delete(want, id)
	delete(got, id)
	if diff := cmp.Diff(want, got); diff != "" {
		h.t.Errorf("the other workers are not what they were (-before +after):\n%s", diff)
	}
}

// wantCounted compares the count with the callers' own counts.
func (h *host) wantCounted(load *load) {
	h.t.Helper()
	acked, sent := load.acked.Load(), load.sent.Load()
	if d := h.dump(); d.ProcessedCount < acked || d.ProcessedCount > sent {
		h.t.Errorf("processed_count = %d, want it between %d acknowledged and %d sent", d.ProcessedCount, acked, sent)
	}
	h.t.Logf("%d sent, %d acknowledged", sent, acked)
}

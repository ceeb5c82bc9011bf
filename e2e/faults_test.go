//go:build e2e && linux

package e2e

import (
	"context"
	"crypto/rand"
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

// Faults of the machine: the state cannot be written, or the master cannot have
// what it asks the kernel for. Whatever it is, nothing that was acknowledged is
// lost, the workers live on, and when the fault is gone everything is as before,
// without anybody doing anything.

// outage is a time in which the state cannot be written.
type outage struct {
	reason string // what callers are told
	// grows: the state is refused only what it grows by.
	grows bool
	begin func(*master)
	end   func()
	again func() *master // starts one in the middle of it; nil means as always
}

// steady is how many workers of a host under a fault run on and on, the first ones.
const steady = 3

// restless are steady workers, and a crowd that ends at once when it is started, so
// that the registry grows.
func (h *host) restless() []string {
	flags := h.units(slices.Concat(slices.Repeat([]string{"plain"}, steady), slices.Repeat([]string{"exits"}, 10))...)
	return append(flags, "--restart-backoff", "1ms", "--restart-budget", "10/5m")
}

// survive runs the test twice: the master lives through the outage, or is killed in
// the middle of it and started again. prepare gives what the outage is on this host.
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
	h.awaitOutage(o)
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
		h.awaitOutage(o)
		h.wantOutage(load, o, before)
	}
	o.end()
	load.awaitMore(100)
	// What died meanwhile has paid for nothing but its death.
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

// awaitSteady returns the dump, of the steady workers only, in which each passes.
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

// awaitOutage returns when requests are refused, and has the registry grow until then
// where that is what it takes.
func (h *host) awaitOutage(o outage) {
	h.t.Helper()
	if o.grows {
		h.growUntilRefused(o.reason)
	}
	h.awaitRefusal(o.reason)
}

// growUntilRefused registers one service after the other, of an endpoint that nobody is.
func (h *host) growUntilRefused(reason string) {
	h.t.Helper()
	conn, err := grpc.NewClient("unix://"+filepath.Join(h.state, "run", "admin.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	registry, endpoint := adminpb.NewRegistryClient(conn), address(freePort(h.t))
	const most = 20_000 // some MiB
	for range most {
		ctx, cancel := context.WithTimeout(h.t.Context(), patience)
		request := &adminpb.RegisterRequest{Service: "grown.S" + rand.Text() + strings.Repeat(".more", 30), Address: endpoint}
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

// wantOutage checks what is visible while the state cannot be written: callers and
// operators are told why, and workers that nobody has killed answer by themselves.
func (h *host) wantOutage(load *load, o outage, before dump) {
	h.t.Helper()
	load.takeFailures() // of before
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
	// Which none is that is not counted.
	if more := h.dump().ProcessedCount - counted; more != 0 {
		h.t.Errorf("%d requests were acknowledged while nothing could be written", more)
	}
	if r := h.cli("status"); r.code != 0 || !strings.Contains(r.stdout, "the state cannot be written") || !strings.Contains(r.stdout, o.reason) {
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

// wantOnlyRestarted checks that the worker was started once more, and that nothing
// happened to the others.
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

// wantCounted checks the count against what the callers know.
func (h *host) wantCounted(load *load) {
	h.t.Helper()
	acked, sent := load.acked.Load(), load.sent.Load()
	if d := h.dump(); d.ProcessedCount < acked || d.ProcessedCount > sent {
		h.t.Errorf("processed_count = %d, want it between %d acknowledged and %d sent", d.ProcessedCount, acked, sent)
	}
	h.t.Logf("%d sent, %d acknowledged", sent, acked)
}

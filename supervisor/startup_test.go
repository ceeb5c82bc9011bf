package supervisor

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/process"
)

func TestStartingWorkerShowsWhatItIsWaitedForAndWhatItAnsweredLast(t *testing.T) {
	for name, test := range map[string]struct {
		behave func(*fakeProcess)
		want   string // %d: the port
	}{
		"port not open": {func(p *fakeProcess) { p.readyAfter = -1 }, "port %d: connection refused"},
		"port of another": {
			func(p *fakeProcess) { p.owner = process.PortForeign },
			"port %d: is held by another process",
		},
		"nothing answered": {func(p *fakeProcess) { p.mute = true }, "Ping: no answer yet"},
		"an error": {
			func(p *fakeProcess) { p.pingErr = status.Error(codes.FailedPrecondition, "no database") },
			"Ping: FailedPrecondition: no database",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := newFakeOS(t)
				world.behave = test.behave
				m := startMaster(t, world, t.TempDir(), 1)
				settle(500 * time.Millisecond)
				w := m.worker("worker-0")
				want := strings.Replace(test.want, "%d", fmt.Sprint(w.Port), 1)
				if w.Status != records.StatusStarting || w.WaitingFor != want {
					t.Errorf("worker is %s and waited for %q, want %q", w.Status, w.WaitingFor, want)
				}
				p := world.of("worker-0")
				p.set(func() { p.readyAfter, p.owner, p.mute, p.pingErr = 0, process.PortOurs, false, nil })
				settle(11 * time.Second) // a Ping is retried after 10 s at most
				if test.want == "Ping: no answer yet" || name == "port of another" {
					m.stop(nil)
					return // the first Ping is in progress until the start timeout
				}
				if w := m.worker("worker-0"); w.WaitingFor != "" ||
					w.Status != records.StatusRunning || w.Probe != "ping" {
					t.Errorf("worker is %s, waited for %q, asked by %q; want it running",
						w.Status, w.WaitingFor, w.Probe)
				}
				m.stop(nil)
			})
		})
	}
}

func TestReasonOfAWorkerThatIsNotReadyInTimeQuotesItsLastAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.pingErr = status.Error(codes.Internal, "no database") }
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Hour)
		if w := m.worker("worker-0"); !strings.Contains(w.Reason,
			"was not ready within 30s: Ping: Internal: no database") {
			t.Errorf("the reason is %q, want the worker's last answer", w.Reason)
		}
		m.stop(nil)
	})
}

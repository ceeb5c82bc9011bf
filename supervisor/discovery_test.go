package supervisor

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// A unit that names no services has the default one only if its workers answer it.
func TestAssumedServiceIsOfferedOnlyByAWorkerThatAnswersItsGetStatus(t *testing.T) {
	unimplemented := status.Error(codes.Unimplemented, "unknown service")
	broken := status.Error(codes.Internal, "no database")
	for name, test := range map[string]struct {
		behave    func(*fakeProcess)
		want      bool
		questions int // calls of GetStatus
	}{
		"answered":                       {func(*fakeProcess) {}, true, 1},
		"unimplemented":                  {func(p *fakeProcess) { p.statusErr = unimplemented }, false, 1},
		"an error":                       {func(p *fakeProcess) { p.statusErr = broken }, false, worker.DiscoveryTries},
		"answered, reflection is broken": {func(p *fakeProcess) { p.offerErr = broken }, true, worker.DiscoveryTries},
		"an error, but reflection has it": {
			func(p *fakeProcess) { p.statusErr, p.offers = broken, []string{unit.DefaultService} }, true, 1,
		},
		"answered, but reflection has not": {func(p *fakeProcess) { p.offers = []string{"pkg.A"} }, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world, dir := newFakeOS(t), t.TempDir()
				world.behave = test.behave
				m := startMaster(t, world, dir, 1)
				for range 2 { // started, then adopted
					settle(time.Minute)
					p := world.of("worker-0")
					if p.statuses != test.questions {
						t.Errorf("asked %d times for GetStatus, want %d", p.statuses, test.questions)
					}
					p.statuses = 0
					if got := len(m.ready(unit.DefaultService)) == 1; got != test.want {
						t.Errorf("offered: %t, want %t", got, test.want)
					}
					if m.Standalone(unit.DefaultService) == test.want {
						t.Errorf("standalone: %t", !test.want)
					}
					if w := m.worker("worker-0"); w.Status != records.StatusRunning || !w.Ready {
						t.Errorf("worker is %s, ready: %t", w.Status, w.Ready)
					}
					m.crash()
					m = startMaster(t, world, dir, 1)
				}
				m.stop(nil)
			})
		})
	}
}

// An instance gets no call before it has answered, regardless of the previous instance.
func TestAssumedServiceWaitsForTheInstanceToAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) {
			if world.started["worker-0"] > 1 {
				p.statusErr = status.Error(codes.Unavailable, "still loading")
			}
		}
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Minute)
		m.wantReady(unit.DefaultService, "worker-0")
		world.of("worker-0").die(identity.Exit{Signal: 9})
		settle(time.Second)
		m.wantReady(unit.DefaultService)
		if m.Services().Service(unit.DefaultService) == nil {
			t.Error("calls are refused that could wait")
		}
		p := world.of("worker-0")
		p.set(func() { p.statusErr = nil })
		settle(defaults.Health.Readiness.Interval)
		m.wantReady(unit.DefaultService, "worker-0")
		m.stop(nil)
	})
}

func TestUnitWithoutServicesOffersNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = func(p *fakeProcess) { p.offers = []string{"pkg.A", unit.DefaultService} }
		none := func(u *unit.Spec) { u.NoServices = true }
		m := startMaster(t, world, dir, 1) // records the offered services
		settle(time.Second)
		m.wantReady("pkg.A", "worker-0")
		m.crash()
		world.of("worker-0").asked = 0
		m = startMaster(t, world, dir, 1, none)
		settle(time.Minute)
		for _, name := range []string{"pkg.A", unit.DefaultService} {
			if m.Services().Service(name) != nil {
				t.Errorf("%s is offered", name)
			}
		}
		if !m.Standalone(unit.DefaultService) {
			t.Error("not standalone although nobody offers the service")
		}
		p := world.of("worker-0")
		if p.asked != 0 || p.statuses > 1 {
			t.Errorf("a worker that offers nothing was asked %d and %d times", p.asked, p.statuses)
		}
		if w := m.worker("worker-0"); !w.Ready || len(w.Services) != 1 || !w.Services[0].Denied() {
			t.Errorf("ready: %t, recorded: %+v, want the default, denied", w.Ready, w.Services)
		}
		m.stop(nil)
	})
	if err := (&unit.Spec{Name: "u", NoServices: true, Services: []string{"pkg.A"}}).CheckFields(); err == nil {
		t.Error("a unit may have services and none")
	}
}

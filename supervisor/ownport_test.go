package supervisor

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

func withOwnPort(u *unit.Spec) { u.Port = unit.AnnouncedPort }

// ownPorts gives each process a port of its own choice, from 7000 on.
func ownPorts() func(*fakeProcess) {
	next := 7000
	return func(p *fakeProcess) {
		p.rec.Port = next
		next++
	}
}

// announce publishes a module of the worker with the ports of its APIs for gRPC.
func (m *master) announce(id, module string, ports ...int) error {
	m.t.Helper()
	for _, w := range m.set.list() {
		if w.ID() != id {
			continue
		}
		inst, err := w.Living(m.t.Context())
		if err != nil {
			return err
		}
		a := records.Announcement{Module: module, PID: inst.Identity().PID}
		for _, port := range ports {
			a.APIs = append(a.APIs, records.AnnouncedAPI{ServiceIDs: []string{"s"}, Port: port, Protocol: "grpc"})
		}
		return w.Announce(m.t.Context(), inst, a)
	}
	return errors.New("no such worker")
}

// wantOwnPort checks the port of a worker that chooses it itself, and that nothing is reserved.
func (m *master) wantOwnPort(when, id string, port int) {
	m.t.Helper()
	w := m.worker(id)
	if !w.Ready || w.Instance.Port != port || w.Port != 0 {
		m.t.Errorf("%s: %s is %s (%s) on port %+v, reserved %d, want port %d",
			when, id, w.Status, w.Reason, w.Instance, w.Port, port)
	}
}

func TestOwnPortIsKeptAcrossACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = ownPorts()
		m := startMaster(t, world, dir, 2, withOwnPort)
		settle(time.Minute)
		p := world.of("worker-0")
		first := p.rec.Port
		m.wantOwnPort("first start", "worker-0", first)
		m.wantOwnPort("first start", "worker-1", world.of("worker-1").rec.Port)
		m.wantReady("proto.MyBusinessService", "worker-0", "worker-1")
		m.crash()
		m = startMaster(t, world, dir, 2, withOwnPort)
		settle(time.Minute)
		m.wantOwnPort("after the crash", "worker-0", first)
		if n := world.starts("worker-0"); n != 1 {
			t.Errorf("%d starts", n)
		}
		p.die(identity.Exit{Signal: 9, Source: identity.ExitWait})
		settle(time.Minute)
		m.wantOwnPort("after its end", "worker-0", world.of("worker-0").rec.Port)
		if world.of("worker-0").rec.Port == first {
			t.Error("the next instance has the port of the first one")
		}
		m.stop(nil)
	})
}

// A master that is killed while the worker starts leaves no port in the record, and the next one searches again.
func TestOwnPortOfAStartThatACrashCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = func(p *fakeProcess) { p.rec.Port, p.mute = 7000, true }
		m := startMaster(t, world, dir, 1, withOwnPort)
		settle(time.Second)
		if w := m.worker("worker-0"); w.Status != records.StatusStarting || w.Instance.Port != 0 ||
			!w.Instance.OwnPort {
			t.Errorf("worker = %+v, want it starting without a port", w.Instance)
		}
		m.crash()
		p := world.of("worker-0")
		p.set(func() { p.mute = false })
		m = startMaster(t, world, dir, 1, withOwnPort)
		settle(time.Second)
		m.wantOwnPort("adopted", "worker-0", 7000)
		if n := world.starts("worker-0"); n != 1 {
			t.Errorf("%d starts", n)
		}
		m.stop(nil)
	})
}

func TestSeveralPortsWaitForAPublication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.rec.Port, p.listens = 7001, []int{7000, 7001} }
		m := startMaster(t, world, t.TempDir(), 1, withOwnPort)
		settle(2 * time.Second)
		const reason = "its port: it listens on the ports 7000, 7001, and has published none of them"
		if w := m.worker("worker-0"); w.WaitingFor != reason || w.Ready {
			t.Errorf("it waits for %q, want %q", w.WaitingFor, reason)
		}
		if err := m.announce("worker-0", "m", 7001); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		m.wantOwnPort("published", "worker-0", 7001)
		m.stop(nil)
	})
}

// The first port that a worker opens is not its port if it opens another one while it starts.
func TestSecondPortWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.rec.Port, p.listens, p.mute = 7000, []int{7000}, true }
		m := startMaster(t, world, t.TempDir(), 1, withOwnPort)
		settle(time.Second)
		if w := m.worker("worker-0"); !strings.Contains(w.WaitingFor, "Ping") {
			t.Errorf("it waits for %q, want a Ping", w.WaitingFor)
		}
		p := world.of("worker-0")
		p.set(func() { p.listens = []int{7000, 7002} })
		settle(time.Second)
		if w := m.worker("worker-0"); !strings.Contains(w.WaitingFor, "7000, 7002") {
			t.Errorf("it waits for %q, want the ports", w.WaitingFor)
		}
		world.set(func() { p.rec.Port = 7002 })
		p.set(func() { p.listens, p.mute = []int{7002}, false })
		settle(time.Second)
		m.wantOwnPort("when the first one is closed", "worker-0", 7002)
		m.stop(nil)
	})
}

func TestOwnPortThatNeverGetsClear(t *testing.T) {
	for name, c := range map[string]struct {
		listens []int
		publish []int
		owner   process.Ownership
		want    string
	}{
		"none":    {[]int{}, nil, process.PortOurs, "it listens on no port"},
		"two":     {[]int{7, 8}, nil, process.PortOurs, "it listens on the ports 7, 8, and has published none of them"},
		"many":    {[]int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, nil, process.PortOurs, "6, 7, 8 and 2 more, and"},
		"foreign": {[]int{7}, []int{9}, process.PortForeign, "has published port 9, which is held by another process"},
		"closed":  {[]int{7}, []int{9}, process.PortFree, "it has published port 9, and does not listen on it"},
		"several": {[]int{7}, []int{8, 9}, process.PortOurs, "it has published the ports 8, 9, and one is needed"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := newFakeOS(t)
				world.behave = func(p *fakeProcess) { p.listens, p.mute = c.listens, true }
				m := startMaster(t, world, t.TempDir(), 1, withOwnPort)
				settle(0)
				p := world.of("worker-0")
				p.set(func() { p.owner = c.owner })
				if len(c.publish) > 0 {
					if err := m.announce("worker-0", "m", c.publish...); err != nil {
						t.Fatal(err)
					}
				}
				settle(defaults.Start.Timeout - time.Second)
				if w := m.worker("worker-0"); !strings.Contains(w.WaitingFor, c.want) {
					t.Errorf("it waits for %q, want %q", w.WaitingFor, c.want)
				}
				settle(2 * time.Second)
				want := "has no known port after 30s: "
				if w := m.worker("worker-0"); w.LastExit == nil || m.events("stopping") == 0 {
					t.Errorf("worker = %+v, want it ended because it %s", w, want)
				}
				if h := strings.Join(m.history("stopping"), "\n"); !strings.Contains(h, want) ||
					!strings.Contains(h, c.want) {
					t.Errorf("the history has %q, want %q", h, want+c.want)
				}
				m.stop(nil)
			})
		})
	}
}

// A running worker that publishes another port gets its calls there.
func TestPublishedPortMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = ownPorts()
		m := startMaster(t, world, dir, 1, withOwnPort)
		settle(time.Minute)
		p := world.of("worker-0")
		world.set(func() { p.rec.Port = 7900 })
		if err := m.announce("worker-0", "m", 7900); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		m.wantOwnPort("moved", "worker-0", 7900)
		address := ""
		for _, s := range m.Services().Snapshot() {
			for _, e := range s.Endpoints {
				address = e.Address
			}
		}
		if address != "127.0.0.1:7900" {
			t.Errorf("calls go to %q", address)
		}
		m.crash()
		m = startMaster(t, world, dir, 1, withOwnPort)
		settle(time.Second)
		m.wantOwnPort("adopted", "worker-0", 7900)
		if list := m.Modules().List(); len(list) != 1 || list[0].Module != "m" || !list[0].Routed {
			t.Errorf("modules = %+v", list)
		}
		m.stop(nil)
	})
}

// What an instance has published ends with it.
func TestAnnouncementsEndWithTheInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Minute)
		for i := range worker.MaxAnnouncements {
			if err := m.announce("worker-0", fmt.Sprint("m", i), 80); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.announce("worker-0", "m3"); err != nil {
			t.Errorf("published again: %v", err)
		}
		if err := m.announce("worker-0", "one more"); !errors.Is(err, worker.ErrTooMany) {
			t.Errorf("one more: %v", err)
		}
		list := m.recorded("worker-0").Instance.Announcements
		if len(list) != worker.MaxAnnouncements || len(list[9].APIs) != 0 || list[9].Module != "m3" {
			t.Errorf("recorded are %+v", list)
		}
		p := world.of("worker-0")
		w := m.set.list()[0]
		err := w.Unannounce(t.Context(), p, "m0")
		if list := m.Modules().List(); err != nil || len(list) != worker.MaxAnnouncements-1 {
			t.Errorf("taken back: %v, %+v", err, list)
		}
		p.die(identity.Exit{Signal: 9, Source: identity.ExitWait})
		settle(time.Minute)
		if list := m.Modules().List(); len(list) != 0 || m.recorded("worker-0").Instance.Announcements != nil {
			t.Errorf("modules = %+v", list)
		}
		if err := w.Announce(t.Context(), p, records.Announcement{Module: "m", PID: 1}); !errors.Is(
			err, worker.ErrOtherInstance) {
			t.Errorf("published by the former instance: %v", err)
		}
		m.stop(nil)
	})
}

package unit

import (
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/process"
)

func TestChecksOfAUnit(t *testing.T) {
	http := probe.Spec{Type: probe.TypeHTTP, URL: "http://127.0.0.1:{port}/"}
	elsewhere := probe.Spec{Type: probe.TypeTCP, Address: "db:5432"}
	slow := probe.Spec{Policy: probe.Policy{Interval: time.Minute}}
	for name, test := range map[string]struct {
		unit              Spec
		ready, alive      probe.Type
		one               bool
		connects, listens bool
	}{
		"nothing": {Spec{}, probe.TypeAuto, probe.TypeAuto, true, true, true},
		"no port": {Spec{Port: NoPort}, probe.TypeProcess, probe.TypeProcess, true, false, false},
		"no port, slow": {
			Spec{Port: NoPort, Health: Health{Readiness: slow}},
			probe.TypeProcess, probe.TypeProcess, true, false, false,
		},
		"announced port": {Spec{Port: AnnouncedPort}, probe.TypeAuto, probe.TypeAuto, true, true, true},
		"announced port of any program": {
			Spec{Kind: Managed, Port: AnnouncedPort}, probe.TypeProcess, probe.TypeProcess, true, false, true,
		},
		"any program": {
			Spec{Kind: Managed, Services: []string{"pkg.A"}}, probe.TypeProcess, probe.TypeProcess, true, true, true,
		},
		"readiness alone": {Spec{Health: Health{Readiness: http}}, probe.TypeHTTP, probe.TypeHTTP, true, true, true},
		"liveness alone":  {Spec{Health: Health{Liveness: elsewhere}}, probe.TypeTCP, probe.TypeTCP, true, true, true},
		"apart": {
			Spec{Health: Health{Readiness: http, Liveness: elsewhere}},
			probe.TypeHTTP, probe.TypeTCP, false, true, true,
		},
		"http, no services": {
			Spec{NoServices: true, Health: Health{Readiness: http}}, probe.TypeHTTP, probe.TypeHTTP, true, false, true,
		},
		"nothing of it, no services": {
			Spec{NoServices: true, Health: Health{Readiness: elsewhere}},
			probe.TypeTCP, probe.TypeTCP, true, false, false,
		},
		"liveness by ping, no services": {
			Spec{NoServices: true, Health: Health{Readiness: elsewhere, Liveness: probe.Spec{Type: probe.TypePing}}},
			probe.TypeTCP, probe.TypePing, false, true, true,
		},
		"notify": {
			Spec{Health: Health{Readiness: probe.Spec{Type: probe.TypeNotify}}},
			probe.TypeNotify, probe.TypeNotify, true, true, true,
		},
		"notify, no port": {
			Spec{Port: NoPort, Health: Health{Readiness: probe.Spec{Type: probe.TypeNotify}}},
			probe.TypeNotify, probe.TypeNotify, true, false, false,
		},
	} {
		u := test.unit.WithDefaults()
		ready, alive := u.Health.Readiness, u.Health.Liveness
		if ready.Type != test.ready || alive.Type != test.alive || u.OneCheck() != test.one {
			t.Errorf("%s: %s and %s, one check: %t; want %s and %s, %t", name, ready.Type, alive.Type,
				u.OneCheck(), test.ready, test.alive, test.one)
		}
		if u.Connects() != test.connects || u.Listens() != test.listens {
			t.Errorf("%s: connects %t, listens %t, want %t and %t",
				name, u.Connects(), u.Listens(), test.connects, test.listens)
		}
		if again := u.WithDefaults().Health; !again.Readiness.Equal(ready) || !again.Liveness.Equal(alive) {
			t.Errorf("%s: the defaults change a complete unit", name)
		}
	}
}

func TestFaultsOfChecks(t *testing.T) {
	exec, auto := probe.Spec{Type: probe.TypeExec}, probe.Spec{Type: probe.TypeAuto}
	for name, test := range map[string]struct {
		unit Spec
		want string
	}{
		"one check": {Spec{Name: "u", Health: Health{Readiness: exec}}, "health: command: required"},
		"readiness": {Spec{Name: "u", Health: Health{Readiness: exec, Liveness: auto}}, "readiness: command"},
		"liveness":  {Spec{Name: "u", Health: Health{Readiness: auto, Liveness: exec}}, "liveness: command"},
		"no port": {
			Spec{Name: "u", Port: NoPort, Health: Health{Readiness: probe.Spec{Type: probe.TypePing}}},
			"health: a check of type ping needs the port",
		},
		"no port for a URL": {
			Spec{
				Name: "u", Port: NoPort,
				Health: Health{Readiness: probe.Spec{Type: probe.TypeHTTP, URL: "http://h:{port}/"}},
			},
			"needs the port",
		},
	} {
		if err := test.unit.CheckFields(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	for _, u := range []Spec{
		{Name: "u", Port: NoPort},
		{Name: "u", Port: NoPort, Health: Health{Readiness: probe.Spec{Type: probe.TypeTCP, Address: "db:1"}}},
	} {
		if err := u.CheckFields(); err != nil {
			t.Errorf("%+v: %v", u, err)
		}
	}
}

// A process gets its notify socket at its start, so a change of it replaces the process.
func TestChangesOfNotify(t *testing.T) {
	told := func(readiness, liveness probe.Type, interval time.Duration) *Spec {
		p := probe.Policy{Interval: interval}
		return Spec{
			Name: "u", Kind: Managed, Path: "/bin/true", Replicas: 1, Port: NoPort,
			Health: Health{
				Readiness: probe.Spec{Type: readiness, Policy: p}, Liveness: probe.Spec{Type: liveness, Policy: p},
			},
		}.WithDefaults()
	}
	const none, notify = probe.TypeProcess, probe.TypeNotify
	for name, test := range map[string]struct {
		from, to *Spec
		start    bool
	}{
		"to notify":             {told(none, none, 0), told(notify, none, 0), true},
		"from notify":           {told(notify, notify, 0), told(none, none, 0), true},
		"watchdog too":          {told(notify, none, 0), told(notify, notify, 0), true},
		"period of it":          {told(notify, notify, time.Second), told(notify, notify, time.Minute), true},
		"interval of readiness": {told(notify, none, time.Second), told(notify, none, time.Minute), false},
		"the same":              {told(notify, notify, 0), told(notify, notify, 0), false},
	} {
		before, err1 := test.from.Hash()
		after, err2 := test.to.Hash()
		start, _ := test.from.Differences(test.to)
		if err1 != nil || err2 != nil || (before != after) != test.start || (len(start) > 0) != test.start {
			t.Errorf("%s: differences %q, hash differs: %t, want a restart: %t",
				name, start, before != after, test.start)
		}
	}
	if w := told(none, notify, time.Second).Watchdog(); w != time.Second {
		t.Errorf("the watchdog of liveness alone is %s, want 1s", w)
	}
	u := told(notify, notify, 0)
	u.Kind, u.Discover = Unmanaged, process.Pattern{Name: "a"}
	if err := u.CheckFields(); err == nil || !strings.Contains(err.Error(), "for units that the master starts") {
		t.Errorf("unmanaged: %v, want that it cannot notify", err)
	}
}

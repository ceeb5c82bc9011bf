package dependencies

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// of returns a unit of one worker with the dependencies, each in the form "db ready".
func of(name string, on ...string) unit.Spec {
	u := unit.Spec{Name: name, Replicas: 1, Stop: unit.Stop{Grace: 10 * time.Second}}
	for _, d := range on {
		name, condition, _ := strings.Cut(d, " ")
		u.DependsOn = append(u.DependsOn, unit.Dependency{Unit: name, Condition: unit.Condition(condition)})
	}
	return u
}

func job(name string, on ...string) unit.Spec {
	u := of(name, on...)
	u.Restart.Mode = unit.RestartOnFailure
	return u
}

func TestCheckNamesEachDependencyThatCanNeverBeMet(t *testing.T) {
	for name, c := range map[string]struct {
		units []unit.Spec
		want  []string
	}{
		"none":   {units: []unit.Spec{of("a"), of("b")}},
		"chain":  {units: []unit.Spec{of("a", "b ready"), of("b", "c started"), of("c")}},
		"shared": {units: []unit.Spec{of("a", "b ready", "c ready"), of("b", "d ready"), of("c", "d ready"), of("d")}},
		"job":    {units: []unit.Spec{of("a", "b completed"), job("b")}},
		"unknown": {
			units: []unit.Spec{of("shop", "cash ready")},
			want:  []string{`unit shop: depends on "cash": there is no such unit`},
		},
		"itself": {
			units: []unit.Spec{of("shop", "shop ready")},
			want:  []string{`unit shop: depends on "shop": a unit cannot depend on itself`},
		},
		"always restarted": {
			units: []unit.Spec{of("app", "migrate completed"), of("migrate")},
			want:  []string{`unit app: depends on "migrate": it is always restarted and never completes`},
		},
		"scheduled": {
			units: []unit.Spec{
				of("app", "night ready"), {Name: "night", Replicas: 1, Schedule: unit.Schedule{Cron: "0 3 * * *"}},
			},
			want: []string{`unit app: depends on "night": it has a schedule: nothing can wait for it`},
		},
		"unmanaged": {
			units: []unit.Spec{of("app", "db completed"), {Name: "db", Replicas: 1, Kind: unit.Unmanaged}},
			want:  []string{`unit app: depends on "db": it is unmanaged: how its process ends is not known`},
		},
		"condition": {
			units: []unit.Spec{of("app", "db healthy"), of("db")},
			want:  []string{`unit app: depends on "db": condition "healthy": must be started, ready or completed`},
		},
		"cycles": {
			units: []unit.Spec{
				of("a", "b ready"), of("b", "c ready"), of("c", "b started"), of("d", "e ready"), of("e", "d ready"),
			},
			want: []string{
				"these units depend on each other: b -> c -> b", "these units depend on each other: d -> e -> d",
			},
		},
		"long cycle": {
			units: ring(20),
			want: []string{"these units depend on each other: u0 -> u1 -> u2 -> u3 -> u4 -> (11 more) -> " +
				"u16 -> u17 -> u18 -> u19 -> u0"},
		},
	} {
		var got []string
		if err := Check(c.units); err != nil {
			got = strings.Split(err.Error(), "\n")
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func ring(n int) []unit.Spec {
	units := make([]unit.Spec, n)
	for i := range units {
		units[i] = of(fmt.Sprint("u", i), fmt.Sprintf("u%d ready", (i+1)%n))
	}
	return units
}

func TestOrderHasDependenciesFirstAndOtherwiseKeepsTheOrderOfTheFile(t *testing.T) {
	g := NewGraph([]unit.Spec{
		of("z"), of("app", "db ready", "cache started"), of("cache"), of("db", "disk ready"), of("disk"),
	})
	if got, want := strings.Join(g.Order(), " "), "z disk db cache app"; got != want {
		t.Errorf("order is %q, want %q", got, want)
	}
	names := []string{"gone", "app", "db", "z"}
	slices.SortStableFunc(names, g.Compare())
	if got, want := strings.Join(names, " "), "z db app gone"; got != want {
		t.Errorf("sorted %q, want %q", got, want)
	}
}

func TestStopGraceIsThatOfTheLongestChain(t *testing.T) {
	slow := of("slow", "db ready")
	slow.Stop.Grace = time.Minute
	for want, units := range map[time.Duration][]unit.Spec{
		0:                nil,
		10 * time.Second: {of("a"), of("b")},
		30 * time.Second: {of("a", "b ready"), of("b", "c ready"), of("c"), of("d", "c ready")},
		80 * time.Second: {of("a", "b ready"), of("b", "db ready"), of("top", "slow ready"), slow, of("db")},
	} {
		if got := NewGraph(units).StopGrace(); got != want {
			t.Errorf("%d units: %s, want %s", len(units), got, want)
		}
	}
}

// world returns the workers by id for a resolver.
func world(workers map[string]Worker) func(string) (Worker, bool) {
	return func(id string) (Worker, bool) {
		w, exists := workers[id]
		return w, exists
	}
}

func TestConditionsOfEachStatus(t *testing.T) {
	starting := Worker{Status: records.StatusStarting, Detail: "port 5432: connection refused", Alive: true}
	for name, c := range map[string]struct {
		worker Worker
		// The reason for each condition, empty if it is met. One that begins with "!" is hopeless.
		started, ready, completed string
	}{
		"running": {Worker{Status: records.StatusRunning, Alive: true, Ready: true}, "", "", "db-0 is running"},
		"running without a connection": {
			Worker{Status: records.StatusRunning, Alive: true}, "", "db-0 is running", "db-0 is running",
		},
		"starting": {
			starting, "", "db-0 is starting: port 5432: connection refused",
			"db-0 is starting: port 5432: connection refused",
		},
		"about to be forked": {
			Worker{Status: records.StatusStarting}, "db-0 is starting", "db-0 is starting", "db-0 is starting",
		},
		"unhealthy": {
			Worker{Status: records.StatusUnhealthy, Detail: "no answer", Alive: true},
			"", "db-0 is unhealthy: no answer", "db-0 is unhealthy: no answer",
		},
		"stopping": {
			Worker{Status: records.StatusStopping}, "db-0 is stopping", "db-0 is stopping", "db-0 is stopping",
		},
		"stopped": {Worker{Status: records.StatusStopped}, "!db-0 is stopped", "!db-0 is stopped", "!db-0 is stopped"},
		"backoff": {
			Worker{Status: records.StatusBackoff, Detail: "exited with code 1"},
			"db-0 is in backoff: exited with code 1",
			"db-0 is in backoff: exited with code 1", "db-0 is in backoff: exited with code 1",
		},
		"failed": {
			Worker{Status: records.StatusFailed, Detail: "exited with code 1"},
			"!db-0 has failed: exited with code 1",
			"!db-0 has failed: exited with code 1", "!db-0 has failed: exited with code 1",
		},
		"completed": {
			Worker{Status: records.StatusCompleted, Detail: "exited with code 0"},
			"",
			"!db-0 has completed and is not ready: exited with code 0", "",
		},
		"waiting": {
			Worker{Status: records.StatusWaiting, Detail: "old"},
			"db-0 is waiting", "db-0 is waiting",
			"db-0 is waiting",
		},
		"new": {Worker{}, "db-0 is not started yet", "db-0 is not started yet", "db-0 is not started yet"},
		"recovering": {
			Worker{Status: records.StatusRunning, Alive: true, Ready: true, Unknown: true},
			"db-0 is being recovered", "db-0 is being recovered", "db-0 is being recovered",
		},
		"held": {
			Worker{Status: records.StatusCompleted, Unknown: true, Detail: "held: no access"},
			"db-0 is held: no access", "db-0 is held: no access", "db-0 is held: no access",
		},
	} {
		for condition, want := range map[string]string{
			"started": c.started, "ready": c.ready, "completed": c.completed,
		} {
			g := NewGraph([]unit.Spec{of("app", "db "+condition), job("db")})
			b := g.Resolve(world(map[string]Worker{"db-0": c.worker})).Of("app")
			reason, hopeless := strings.CutPrefix(want, "!")
			if reason != "" {
				reason = "db: " + reason
			}
			if b.Reason != reason || b.Hopeless != hopeless || b.Blocked() != (want != "") {
				t.Errorf("%s, %s: got %+v, want %q, hopeless %t", name, condition, b, reason, hopeless)
			}
		}
	}
}

func TestAllReplicasMustMeetTheCondition(t *testing.T) {
	db := of("db")
	db.Replicas = 3
	running := Worker{Status: records.StatusRunning, Alive: true, Ready: true}
	failed := Worker{Status: records.StatusFailed, Detail: "why"}
	starting := Worker{Status: records.StatusStarting}
	g := NewGraph([]unit.Spec{of("app", "db ready", "cache ready"), db, of("cache")})
	for want, workers := range map[string][4]Worker{
		"":                               {running, running, running, running},
		"db: db-1 is starting":           {running, starting, starting, running},
		"db: db-2 has failed: why":       {running, starting, failed, running},
		"cache: cache-0 is starting":     {running, running, running, starting},
		"cache: cache-0 has failed: why": {running, starting, running, failed}, // what needs a remedy comes first
	} {
		b := g.Resolve(world(map[string]Worker{
			"db-0": workers[0], "db-1": workers[1], "db-2": workers[2], "cache-0": workers[3],
		})).Of("app")
		if b.Reason != want {
			t.Errorf("got %q, want %q", b.Reason, want)
		}
	}
	if b := g.Resolve(world(nil)).Of("app"); b.Reason != "db: db-0 does not exist yet" || b.Hopeless {
		t.Errorf("without workers: %+v", b)
	}
	db.Replicas = 0
	b := NewGraph([]unit.Spec{of("app", "db started"), db}).Resolve(world(nil)).Of("app")
	if b.Reason != "db: it is disabled or has no replicas" || !b.Hopeless {
		t.Errorf("without replicas: %+v", b)
	}
	b = NewGraph([]unit.Spec{of("app", "db started")}).Resolve(world(nil)).Of("app")
	if b.Reason != "db: there is no such unit" || !b.Hopeless {
		t.Errorf("without the unit: %+v", b)
	}
	if b := g.Resolve(world(nil)).Of("unknown"); b.Blocked() {
		t.Errorf("a unit that the graph does not have is blocked: %+v", b)
	}
}

// A worker at the end of a chain shows the cause at its beginning, and each worker is looked at once.
func TestReasonOfAChainIsItsCause(t *testing.T) {
	const length = 5000
	units := []unit.Spec{of("u0")}
	for i := 1; i < length; i++ {
		on := []string{fmt.Sprintf("u%d ready", i-1)}
		if i > 1 { // many ways through the graph
			on = append(on, fmt.Sprintf("u%d ready", i-2))
		}
		units = append(units, of(fmt.Sprint("u", i), on...))
	}
	g, looked := NewGraph(units), 0
	resolver := g.Resolve(func(id string) (Worker, bool) {
		looked++
		if id == "u0-0" {
			return Worker{Status: records.StatusFailed, Detail: "why"}, true
		}
		return Worker{Status: records.StatusWaiting}, true
	})
	b := resolver.Of(fmt.Sprint("u", length-1))
	if want := "u4998: u4998-0 is waiting: u0: u0-0 has failed: why"; b.Reason != want || !b.Hopeless {
		t.Errorf("got %+v, want %q", b, want)
	}
	if looked > 2*length {
		t.Errorf("%d looks at workers for %d units", looked, length)
	}
}

// Only a start or a run that is under way can meet a condition by itself.
func TestStalledDependencies(t *testing.T) {
	for status, stalled := range map[records.Status][3]bool{ // started, ready, completed
		records.StatusStarting:  {},
		records.StatusStopping:  {},
		records.StatusRunning:   {true, true, false},
		records.StatusUnhealthy: {true, true, false},
		records.StatusBackoff:   {true, true, true},
		records.StatusAbsent:    {true, true, true},
	} {
		for i, condition := range []string{"started", "ready", "completed"} {
			g := NewGraph([]unit.Spec{of("last", "app ready"), of("app", "db "+condition), job("db")})
			resolver := g.Resolve(world(map[string]Worker{
				"db-0": {Status: status}, "app-0": {Status: records.StatusWaiting},
			}))
			for _, name := range []string{"app", "last"} {
				if b := resolver.Of(name); !b.Blocked() || b.Stalled != stalled[i] {
					t.Errorf("%s, %s: %s is %+v, want stalled %t", status, condition, name, b, stalled[i])
				}
			}
		}
	}
	held := map[string]Worker{"db-0": {Unknown: true, Detail: "held: no access"}}
	if b := NewGraph([]unit.Spec{of("app", "db ready"), of("db")}).Resolve(world(held)).Of("app"); !b.Stalled {
		t.Errorf("a held one: %+v, want it stalled", b)
	}
}

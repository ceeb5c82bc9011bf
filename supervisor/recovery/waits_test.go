package recovery

import (
	"testing"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// The plan names the dependency that a worker to be started waits for, as it follows from the other decisions.
func TestPlanSaysWhatAStartWaitsFor(t *testing.T) {
	running := Orders{From: lifecycle.State{Status: records.StatusRunning}, Ping: true}
	starting := Orders{From: lifecycle.State{Status: records.StatusStarting}}
	for name, c := range map[string]struct {
		db                        Decision
		started, ready, completed string
	}{
		"adopted": {Decision{Action: ActionAdopt, Orders: running}, "", "", "db: db-0 is running"},
		"adopted while it starts": {
			Decision{Action: ActionAdopt, Orders: starting}, "", "db: db-0 is starting", "db: db-0 is starting",
		},
		"suspended": {
			Decision{Action: ActionAdoptUnhealthy, Orders: Orders{Silent: "stopped by a signal"}},
			"", "db: db-0 is unhealthy: stopped by a signal", "db: db-0 is unhealthy: stopped by a signal",
		},
		"started": {
			Decision{Action: ActionStart},
			"db: db-0 is not started yet", "db: db-0 is not started yet",
			"db: db-0 is not started yet",
		},
		"respawned": {
			Decision{Action: ActionRespawn},
			"db: db-0 is not started yet", "db: db-0 is not started yet",
			"db: db-0 is not started yet",
		},
		"in backoff": {
			Decision{Action: ActionWait},
			"db: db-0 is in backoff: recorded", "db: db-0 is in backoff: recorded",
			"db: db-0 is in backoff: recorded",
		},
		"failing": {
			Decision{Action: ActionFail, Reason: "budget"},
			"db: db-0 has failed: budget", "db: db-0 has failed: budget",
			"db: db-0 has failed: budget",
		},
		"failed": {
			Decision{Action: ActionKeepFailed},
			"db: db-0 has failed: recorded", "db: db-0 has failed: recorded",
			"db: db-0 has failed: recorded",
		},
		"completed": {
			Decision{Action: ActionKeepCompleted}, "", "db: db-0 has completed and is not ready: recorded", "",
		},
		"stopped": {
			Decision{Action: ActionKeepStopped}, "db: db-0 is stopped", "db: db-0 is stopped", "db: db-0 is stopped",
		},
		"stopping": {
			Decision{Action: ActionStop},
			"db: db-0 is stopping: recorded", "db: db-0 is stopping: recorded",
			"db: db-0 is stopping: recorded",
		},
		"held": {
			Decision{Action: ActionHold, Reason: "no access"},
			"db: db-0 is held: no access",
			"db: db-0 is held: no access", "db: db-0 is held: no access",
		},
	} {
		for condition, want := range map[unit.Condition]string{
			unit.Started: c.started, unit.Ready: c.ready, unit.Completed: c.completed,
		} {
			app := unit.Spec{Name: "app", Replicas: 1, DependsOn: []unit.Dependency{{Unit: "db", Condition: condition}}}
			top := unit.Spec{
				Name: "top", Replicas: 1, DependsOn: []unit.Dependency{{Unit: "app", Condition: unit.Started}},
			}
			lives := unit.Spec{Name: "lives", Replicas: 1, DependsOn: app.DependsOn}
			units := []unit.Spec{top, app, {Name: "db", Replicas: 1}, lives}
			slots := make([]Slot, len(units))
			for i := range units {
				u := &units[i]
				slots[i] = Slot{ID: u.WorkerID(0), Unit: u, Rec: records.Worker{Reason: "recorded"}}
			}
			decisions := []Decision{
				{Action: ActionRespawn, Reason: "it exited"},
				{Action: ActionStart, Reason: "it never ran"},
				c.db,
				{Action: ActionAdopt, Reason: "it lives", Orders: running},
			}
			addWaits(decisions, slots, nil, units)
			reason, topWants := "it never ran", "app: app-0 is not started yet"
			if want != "" {
				reason, topWants = "it never ran; it waits for "+want, "app: app-0 is waiting: "+want
			}
			if d := decisions[1]; d.WaitsFor != want || d.Reason != reason || d.Action != ActionStart {
				t.Errorf("%s, %s: app-0 waits for %q: %q, want %q", name, condition, d.WaitsFor, d.Reason, want)
			}
			if d := decisions[0]; d.WaitsFor != topWants {
				t.Errorf("%s, %s: top-0 waits for %q, want %q", name, condition, d.WaitsFor, topWants)
			}
			if d := decisions[3]; d.WaitsFor != "" || d.Reason != "it lives" {
				t.Errorf("%s, %s: a living worker waits for %q", name, condition, d.WaitsFor)
			}
			if d := decisions[2]; d.WaitsFor != "" {
				t.Errorf("%s, %s: db-0 waits for %q", name, condition, d.WaitsFor)
			}
		}
	}
}

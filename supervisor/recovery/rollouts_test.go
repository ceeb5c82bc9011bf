package recovery

import (
	"testing"

	"github.com/core-tools/hsu-master/store/records"
)

func TestPlanShowsTheRolloutThatGoesOn(t *testing.T) {
	begun := []records.RolloutWorker{
		{ID: "a-0", Incarnation: 1}, {ID: "a-1", Incarnation: 1}, {ID: "a-2", Incarnation: 1},
	}
	recs := []records.Worker{
		{ID: "a-0", Unit: "a", Incarnation: 2}, // it has been replaced
		{ID: "a-1", Unit: "a", Incarnation: 1},
		{ID: "a-2", Unit: "a", Incarnation: 1},
		{ID: "a-3", Unit: "a", Incarnation: 1},
		{ID: "b-0", Unit: "b", Incarnation: 1},
	}
	for act, outdated := range map[records.RolloutAct]bool{records.ActRestart: false, records.ActReload: true} {
		decisions := []Decision{
			{ID: "a-0", Action: ActionAdopt},
			{ID: "a-1", Action: ActionAdopt},
			{ID: "a-2", Action: ActionRespawn},
			{ID: "a-3", Action: ActionAdopt},
			{ID: "b-0", Action: ActionAdoptUnhealthy},
		}
		for i := range decisions {
			decisions[i].Reason, decisions[i].Evidence.Outdated = "why", outdated
		}
		units := []records.Unit{{Name: "a", Rollout: &records.Rollout{Act: act, Workers: begun}}, {Name: "b"}}
		addRollouts(decisions, recs, units)
		for _, d := range decisions {
			reason, rollout := "why", ""
			if d.ID == "a-1" {
				rollout = string(act)
				reason = "why; then it is replaced: the " + rollout + " that was under way goes on"
			}
			if d.Reason != reason || d.Evidence.Rollout != rollout {
				t.Errorf("%s: %s is %s because %q, of rollout %q", act, d.ID, d.Action, d.Reason, d.Evidence.Rollout)
			}
		}
	}
	for _, action := range []Action{ActionFail, ActionKeepFailed, ActionKeepCompleted} {
		over := []Decision{{ID: "a-0", Action: action, Reason: "why"}, {ID: "a-1", Action: action, Reason: "why"}}
		reload := &records.Rollout{Act: records.ActReload, Workers: begun}
		addRollouts(over, recs, []records.Unit{{Name: "a", Rollout: reload}})
		want := "why; then it is started: the reload that was under way goes on"
		if over[0].Reason != "why" || over[1].Reason != want || over[1].Evidence.Rollout != "reload" {
			t.Errorf("%s: %+v, want that the second worker is started", action, over)
		}
	}
	same := []Decision{{ID: "a-1", Action: ActionAdopt, Reason: "why"}}
	reload := &records.Rollout{Act: records.ActReload, Workers: begun}
	addRollouts(same, recs, []records.Unit{{Name: "a", Rollout: reload}})
	if same[0].Reason != "why" {
		t.Errorf("a reload replaces a worker that is not outdated: %q", same[0].Reason)
	}
}

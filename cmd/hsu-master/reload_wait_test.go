package main

import (
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/api/adminpb"
)

func TestWaitedFor(t *testing.T) {
	change := func(action string, ids ...string) *adminpb.UnitChange {
		return &adminpb.UnitChange{Action: action, Workers: ids}
	}
	worker := func(id, status string) *adminpb.Worker {
		return &adminpb.Worker{Id: id, Status: status, Ready: status == "running"}
	}
	slow := worker("new-0", "starting")
	slow.WaitingFor = "Ping: connection refused"
	all := []*adminpb.UnitChange{
		change("start", "new-0", "new-1"), change("replace", "old-0", "old-1"), change("stop", "gone-0"),
		change("update", "kept-0"), change("retry", "failed-0"),
	}
	for name, test := range map[string]struct {
		workers []*adminpb.Worker
		want    string
	}{
		"new ones first": {
			[]*adminpb.Worker{
				slow, worker("new-1", "starting"), worker("old-0", "stopping"), worker("gone-0", "stopping"),
			},
			"new-0 (starting: Ping: connection refused), new-1 (starting)",
		},
		"one that is tried again, too": {
			[]*adminpb.Worker{slow, worker("failed-0", "starting"), worker("old-0", "stopping")},
			"failed-0 (starting), new-0 (starting: Ping: connection refused)",
		},
		"the one that is replaced": {
			[]*adminpb.Worker{worker("new-0", "running"), worker("old-1", "stopping"), worker("gone-0", "stopping")},
			"old-1 (stopping)",
		},
		"a completed one is done": {
			[]*adminpb.Worker{worker("new-0", "completed"), worker("gone-0", "stopping")}, "gone-0 (stopping)",
		},
		"none": {[]*adminpb.Worker{worker("kept-0", "unhealthy"), worker("other-0", "starting")}, ""},
	} {
		got := strings.Join(waitedFor(&adminpb.ReloadResponse{Changes: all}, test.workers), ", ")
		if got != test.want {
			t.Errorf("%s: it waits for %q, want %q", name, got, test.want)
		}
	}
}

package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/api/adminpb"
)

func TestFailedWorkerComesWithWhatRevivesIt(t *testing.T) {
	var out strings.Builder
	failed := &adminpb.Worker{
		Id: "worker-0", Status: "failed", Reason: "restart budget 5/5m used up", LastOutput: []string{"no table"},
	}
	if err := printWorkers(&out, []*adminpb.Worker{failed}, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"worker-0 is failed: restart budget", "  | no table\n", "  next: ", `"hsu-master run"`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out.String())
		}
	}
}

func TestMasterWithoutAStartTimeHasNoAge(t *testing.T) {
	state, now := &adminpb.State{Source: "live", Status: "running"}, time.Now()
	if got := headline(state, now); !strings.Contains(got, " for - ") {
		t.Errorf("%q, want no age", got)
	}
	state.MasterStartedAt = timestamppb.New(now.Add(-time.Hour))
	if got := headline(state, now); !strings.Contains(got, " for 1h ") {
		t.Errorf("%q, want an age of 1h", got)
	}
}

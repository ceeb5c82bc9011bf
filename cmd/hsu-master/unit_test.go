package main

import (
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
)

// The record of a unit that its file disables is that of one with replicas: 0. Without a master, nothing is said of it.
func TestEnabledIsNotClaimedWithoutAMaster(t *testing.T) {
	for _, c := range []struct {
		source string
		unit   *adminpb.Unit
		want   string
	}{
		{api.SourceLive, &adminpb.Unit{Replicas: 2}, "yes"},
		{api.SourceLive, &adminpb.Unit{}, "yes"},
		{api.SourceLive, &adminpb.Unit{Disabled: true}, "no"},
		{api.SourceOffline, &adminpb.Unit{Replicas: 2}, "yes"},
		{api.SourceOffline, &adminpb.Unit{Replicas: 2, Disabled: true}, "no"},
		{api.SourceOffline, &adminpb.Unit{}, "-"},
	} {
		c.unit.Name = "web"
		var b strings.Builder
		state := &adminpb.State{Source: c.source, Units: []*adminpb.Unit{c.unit}}
		if err := printSummaries(&b, summarize(state)); err != nil {
			t.Fatal(err)
		}
		if got := strings.Fields(b.String())[7]; got != c.want {
			t.Errorf("%s %v: ENABLED is %s, want %s:\n%s", c.source, c.unit, got, c.want, &b)
		}
	}
}

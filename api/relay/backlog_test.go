package relay

import (
	"testing"

	"github.com/core-tools/hsu-master/api/relay/peers"
)

func TestBacklog(t *testing.T) {
	var table peers.Table
	own, others := table.Join(0, peers.ID{}), table.Join(0, peers.ID{})
	l := backlog{account: own, all: &table, most: 64 << 20}
	for _, step := range []struct {
		name                   string
		own, others            int // bytes that are queued
		withhold, relent, drop bool
	}{
		{"nothing", 0, 0, false, false, false},
		{"much of its own, and nothing else", 16 << 20, 0, false, false, true},
		{"much of its own, and half of the limit is in use", 5 << 20, 30 << 20, true, false, true},
		{"less", 3 << 20, 30 << 20, false, false, true}, // still withheld
		{"little", 1 << 20, 40 << 20, false, true, true},
		{"little, and much of others", 100, 17 << 20, false, false, true},
		{"any, and the limit is in use", 100, 64 << 20, true, false, true},
		{"nothing, and the limit is in use", 0, 65 << 20, false, true, true},
		{"nothing again", 0, 0, false, false, false},
	} {
		own.Keep(peers.Data, step.own-own.KeptOf(peers.Data))
		others.Keep(peers.Data, step.others-others.KeptOf(peers.Data))
		if got := l.withhold(); got != step.withhold {
			t.Errorf("%s: withhold %v, want %v", step.name, got, step.withhold)
		}
		if got := l.relent(); got != step.relent {
			t.Errorf("%s: relent %v, want %v", step.name, got, step.relent)
		}
		if got := l.dropReplay(); got != step.drop {
			t.Errorf("%s: dropReplay %v, want %v", step.name, got, step.drop)
		}
	}
	if !l.grow(budgetGrown) || l.grow(1) {
		t.Error("windows may grow by budgetGrown, and no further")
	}
	if l.shrink(1); !l.grow(1) {
		t.Error("growth that was given back is not available")
	}
}

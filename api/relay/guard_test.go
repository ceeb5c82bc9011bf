package relay

import (
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/peers"
)

func TestGuardOfPings(t *testing.T) {
	const least = 10 * time.Second
	var g guard
	for _, step := range []struct {
		at     time.Duration
		useful bool
		may    bool
	}{
		{1 * time.Second, false, true},
		{2 * time.Second, false, true},
		{3 * time.Second, false, true}, // the second strike
		{20 * time.Second, false, true},
		{21 * time.Second, false, false},
		{22 * time.Second, true, true}, // strikes are forgotten
		{23 * time.Second, false, true},
	} {
		if may := g.ping(step.at, step.useful, least); may != step.may {
			t.Errorf("PING at %v: %v, want %v", step.at, may, step.may)
		}
	}
}

// Output pays for the frames by which a client acknowledges it, once.
func TestGuardOfOutput(t *testing.T) {
	var g guard
	g.sent(10 * paidEach)
	if useful, paid := g.takeUseful(), g.takePaid(); !useful || paid != 2*updateCost+10 {
		t.Errorf("useful %v, %d units are paid", useful, paid)
	}
	if g.takeUseful() || g.takePaid() != 0 {
		t.Error("output counts twice")
	}
}

// The time of a head counts from its beginning, however many reads bring it.
func TestGuardOfHeads(t *testing.T) {
	var table peers.Table
	g := guard{account: table.Join(0, peers.ID{})}
	g.noteHead(true, 1*time.Second)
	g.noteHead(true, 2*time.Second)
	if g.headLate(3*time.Second, 2*time.Second) || !g.headLate(4*time.Second, 2*time.Second) {
		t.Error("the head does not count from its first byte")
	}
	if !g.keepInput(100, 100) || g.account.KeptOf(peers.Input) != 100 {
		t.Errorf("%d bytes are counted for a frame in part", g.account.KeptOf(peers.Input))
	}
	if g.keepInput(101, 100) || g.account.KeptOf(peers.Input) != 100 {
		t.Errorf("%d bytes are counted for a frame in part, beyond the limit", g.account.KeptOf(peers.Input))
	}
	g.noteHead(false, 5*time.Second)
	if !g.keepInput(0, 0) || g.headLate(time.Hour, 2*time.Second) || g.account.Kept() != 0 {
		t.Error("a whole frame counts as a head in part")
	}
}

func TestFrameCost(t *testing.T) {
	for name, c := range map[string]struct {
		f      frames.Frame
		begins bool
		want   int
	}{
		"a call":          {frames.Frame{Kind: http2.FrameHeaders}, true, -peers.Frame},
		"trailers":        {frames.Frame{Kind: http2.FrameHeaders}, false, peers.Frame},
		"data":            {frames.Frame{Kind: http2.FrameData, Payload: []byte{1}}, false, -peers.Frame},
		"the end of data": {frames.Frame{Kind: http2.FrameData, Flags: http2.FlagDataEndStream}, false, -peers.Frame},
		"no data":         {frames.Frame{Kind: http2.FrameData}, false, peers.Frame},
		"padding instead of any": {
			frames.Frame{Kind: http2.FrameData, Flags: http2.FlagDataPadded, Payload: []byte{1, 0}}, false, peers.Frame,
		},
		"a part of headers": {frames.Frame{Kind: http2.FrameContinuation}, false, 1},
		"a window":          {frames.Frame{Kind: http2.FrameWindowUpdate}, false, updateCost},
		"a PING":            {frames.Frame{Kind: http2.FramePing}, false, peers.Frame / 2},
		"an unknown frame":  {frames.Frame{Kind: 99}, false, peers.Frame},
	} {
		if got := frameCost(&c.f, c.begins); got != c.want {
			t.Errorf("%s costs %d, want %d", name, got, c.want)
		}
	}
}

package relay

import (
	"testing"
	"time"

	"golang.org/x/net/http2"

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
	g := guard{member: testClient(&table, "192.0.2.1").member}
	in := newInput(maxHeaderList)
	var l liveness
	read := func(at time.Duration, p []byte) {
		l.heard.Store(int64(at))
		in.add(copy(in.space(), p))
		for ok := true; ok; {
			_, ok, _ = in.next()
		}
		in.compact()
		g.noteHead(&in, &l)
		g.holdInput(&in)
	}
	frame := appendWindowUpdate(nil, 0, 1)
	read(1*time.Second, frame[:3])
	read(2*time.Second, frame[3:10])
	if g.headLate(3*time.Second, 2*time.Second) || !g.headLate(4*time.Second, 2*time.Second) {
		t.Error("the head does not count from its first byte")
	}
	if n := g.member.HeldOf(peers.Input); n != readBuffer {
		t.Errorf("%d bytes are counted for a frame in part", n)
	}
	read(5*time.Second, frame[10:])
	if g.headLate(time.Hour, 2*time.Second) || g.member.Held() != 0 {
		t.Error("a whole frame counts as a head in part")
	}
	read(6*time.Second, appendFrameHeader(nil, 100, http2.FrameData, 0, 1))
	if g.headLate(time.Hour, 2*time.Second) {
		t.Error("DATA counts as a head")
	}
}

func TestFrameCost(t *testing.T) {
	for name, c := range map[string]struct {
		f      frame
		begins bool
		want   int
	}{
		"a call":          {frame{kind: http2.FrameHeaders}, true, -peers.Frame},
		"trailers":        {frame{kind: http2.FrameHeaders}, false, peers.Frame},
		"data":            {frame{kind: http2.FrameData, payload: []byte{1}}, false, -peers.Frame},
		"the end of data": {frame{kind: http2.FrameData, flags: http2.FlagDataEndStream}, false, -peers.Frame},
		"no data":         {frame{kind: http2.FrameData}, false, peers.Frame},
		"padding instead of any": {
			frame{kind: http2.FrameData, flags: http2.FlagDataPadded, payload: []byte{1, 0}}, false, peers.Frame,
		},
		"a part of headers": {frame{kind: http2.FrameContinuation}, false, 1},
		"a window":          {frame{kind: http2.FrameWindowUpdate}, false, updateCost},
		"a PING":            {frame{kind: http2.FramePing}, false, peers.Frame / 2},
		"an unknown frame":  {frame{kind: 99}, false, peers.Frame},
	} {
		if got := frameCost(&c.f, c.begins); got != c.want {
			t.Errorf("%s costs %d, want %d", name, got, c.want)
		}
	}
}

package streams

import "testing"

func TestCutStreams(t *testing.T) {
	const cutTrailers, mostCut = 100, 1 << 20
	s := cutStreams{trailers: cutTrailers, most: mostCut}
	if s.Take(1, 0) {
		t.Error("a frame may come before any stream was cut")
	}
	s.Add(3, 100)
	for _, c := range []struct {
		id   uint32
		n    int
		want bool
	}{
		{1, 1, false},
		{5, 1, false},
		{3, 100 + cutTrailers + 1, false},
		{3, 100, true},
		{3, cutTrailers, true},
		{3, 1, false},
	} {
		if got := s.Take(c.id, c.n); got != c.want {
			t.Errorf("take(%d, %d) = %t", c.id, c.n, got)
		}
	}
	s.Add(7, 100)
	if s.End(7); s.Take(7, 1) {
		t.Error("a frame may come behind the client's end")
	}
	// However many streams are cut, frames may still arrive on each of them.
	const n = 10_000
	for i := range uint32(n) {
		s.Add(4*i+5, 100)
	}
	for i := range uint32(n) {
		if !s.Take(4*i+5, 100) {
			t.Fatalf("a frame on stream %d, which was cut, may not come", 4*i+5)
		}
	}
	if s.Take(4*n+3, 1) {
		t.Error("a frame may come on a new stream that was not cut")
	}
	for range n {
		s.Add(1, 1<<30)
	}
	if s.left != mostCut {
		t.Errorf("%d bytes may still come", s.left)
	}
}

func TestClientIDs(t *testing.T) {
	s := ClientIDs{Newest: 7, Served: 5}
	for id, want := range map[uint32]struct{ opened, ignored bool }{
		0: {false, false}, 2: {false, false}, 3: {true, false}, 5: {true, false}, 6: {false, false}, 7: {true, true},
		9: {false, false},
	} {
		if opened, ignored := s.Opened(id), s.Ignored(id); opened != want.opened || ignored != want.ignored {
			t.Errorf("stream %d: opened %v, ignored %v, want %+v", id, opened, ignored, want)
		}
	}
}

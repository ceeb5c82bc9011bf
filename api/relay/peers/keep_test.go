package peers

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestKept(t *testing.T) {
	var table Table
	if p := table.Largest(); p != nil {
		t.Errorf("an empty table has a largest peer, %v", p.ID())
	}
	a, b, other := table.Join(0, ID{user: 1}), table.Join(0, ID{user: 1}), table.Join(0, ID{user: 2})
	for k := range Kinds {
		a.Keep(k, 10)
	}
	b.Keep(Data, 5)
	other.Keep(Data, 10*int(Kinds)+1)
	if got, want := a.Kept(), int64(10*Kinds); got != want {
		t.Errorf("a connection holds %d bytes, want %d", got, want)
	}
	if got, want := a.Peer().Kept(), int64(10*Kinds+5); got != want {
		t.Errorf("its peer holds %d bytes, want %d", got, want)
	}
	if got, want := table.Kept(), int64(20*Kinds+6); got != want {
		t.Errorf("all hold %d bytes, want %d", got, want)
	}
	if got, want := table.Queued(), table.Kept()-10; got != want {
		t.Errorf("%d bytes are queued, want %d", got, want)
	}
	if p := table.Largest(); p != a.Peer() {
		t.Errorf("the largest peer is %v, want the one of two connections", p.ID())
	}
	if got := b.KeptOf(Data); got != 5 {
		t.Errorf("a connection holds %d bytes of data, want 5", got)
	}
}

// However many connections reserve at the same time, no more than the limit is kept, and all of that can be.
func TestReserve(t *testing.T) {
	const most, conns = 1000, 8
	var table Table
	var all sync.WaitGroup
	var reserved atomic.Int64
	for i := range int64(conns) {
		m := table.Join(0, ID{user: i})
		all.Go(func() {
			for m.Reserve(Input, 1, most) {
				reserved.Add(1)
				if n := table.Kept(); n > most {
					t.Errorf("%d bytes are kept, want %d at most", n, most)
				}
			}
			if n := m.Kept(); n != int64(m.KeptOf(Input)) || n != m.Peer().Kept() {
				t.Errorf("%d bytes are kept for a connection, and %d for its peer", n, m.Peer().Kept())
			}
		})
	}
	all.Wait()
	if reserved.Load() != most || table.Kept() != most {
		t.Errorf("%d bytes are reserved, %d are kept, want %d", reserved.Load(), table.Kept(), most)
	}
}

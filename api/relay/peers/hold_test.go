package peers

import "testing"

func TestHoldings(t *testing.T) {
	var table Table
	if p := table.Largest(); p != nil {
		t.Errorf("an empty table has a largest peer, %v", p.ID())
	}
	a, b, other := table.Join(0, ID{user: 1}), table.Join(0, ID{user: 1}), table.Join(0, ID{user: 2})
	for k := range Kinds {
		a.Hold(k, 10)
	}
	b.Hold(Data, 5)
	other.Hold(Data, 10*int(Kinds)+1)
	if got, want := a.Held(), int64(10*Kinds); got != want {
		t.Errorf("a connection holds %d bytes, want %d", got, want)
	}
	if got, want := a.Peer().Held(), int64(10*Kinds+5); got != want {
		t.Errorf("its peer holds %d bytes, want %d", got, want)
	}
	if got, want := table.Held(), int64(20*Kinds+6); got != want {
		t.Errorf("all hold %d bytes, want %d", got, want)
	}
	if got, want := table.Queued(), table.Held()-10; got != want {
		t.Errorf("%d bytes are queued, want %d", got, want)
	}
	if p := table.Largest(); p != a.Peer() {
		t.Errorf("the largest peer is %v, want the one of two connections", p.ID())
	}
	if got := b.HeldOf(Data); got != 5 {
		t.Errorf("a connection holds %d bytes of data, want 5", got)
	}
}

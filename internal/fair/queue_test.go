package fair

import (
	"math/rand/v2"
	"slices"
	"testing"
)

var (
	a1 = Client{"a", 1}
	a2 = Client{"a", 2}
	b1 = Client{"b", 1}
)

func anyone(Client) Verdict { return Granted }

// drain removes and returns all values.
func drain(q *Queue[string]) (all []string) {
	for {
		v, ok := q.Next(anyone)
		if !ok {
			return all
		}
		all = append(all, v)
	}
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTurns(t *testing.T) {
	var q Queue[string]
	for _, w := range []struct {
		c Client
		v string
	}{{a1, "a1 1"}, {a1, "a1 2"}, {a1, "a1 3"}, {a2, "a2 1"}, {b1, "b1 1"}, {b1, "b1 2"}, {b1, "b1 3"}} {
		q.Push(w.c, w.v)
	}
	if q.Len() != 7 || q.Held(a1) != (Held{Peer: 4, Conn: 3}) || q.Held(Client{"c", 1}) != (Held{}) {
		t.Errorf("%d wait, %+v of a1", q.Len(), q.Held(a1))
	}
	want(t, drain(&q), "a1 1", "b1 1", "a2 1", "b1 2", "a1 2", "b1 3", "a1 3")
	if q.Len() != 0 || len(q.root.kids) != 0 || q.root.turns.Len() != 0 {
		t.Errorf("an empty queue holds %+v", q.root)
	}
}

func TestDeniedClientIsPassedOver(t *testing.T) {
	var q Queue[string]
	q.Push(a1, "a1")
	q.Push(a2, "a2")
	q.Push(b1, "b1")
	asked := 0
	if v, _ := q.Next(func(c Client) Verdict {
		asked++
		if c.Peer == "a" {
			return PeerDenied
		}
		return Granted
	}); v != "b1" || asked != 2 {
		t.Errorf("got %q after %d questions, want b1 after 2", v, asked)
	}
	if v, _ := q.Next(func(c Client) Verdict {
		if c == a1 {
			return ConnDenied
		}
		return Granted
	}); v != "a2" {
		t.Errorf("got %q, want a2", v)
	}
	if _, ok := q.Next(func(Client) Verdict { return ConnDenied }); ok {
		t.Error("a denied client goes on")
	}
	want(t, drain(&q), "a1")
}

func TestPushFrontGivesTheTurnBack(t *testing.T) {
	var q Queue[string]
	q.Push(a1, "a1 1")
	q.Push(a1, "a1 2")
	q.Push(b1, "b1")
	v, _ := q.Next(anyone)
	q.PushFront(a1, v)
	want(t, drain(&q), "a1 1", "b1", "a1 2")
	q.Push(a1, "alone")
	v, _ = q.Next(anyone)
	q.Push(b1, "b1")
	q.PushFront(a1, v)
	want(t, drain(&q), "alone", "b1")
}

func TestRemove(t *testing.T) {
	var q Queue[string]
	w := q.Push(a1, "a1")
	q.Push(a1, "stays")
	last := q.Push(b1, "b1")
	if !q.Remove(w) || q.Remove(w) || !q.Remove(last) {
		t.Error("Remove: want true once")
	}
	want(t, drain(&q), "stays")
}

func TestLargestGivesWay(t *testing.T) {
	var q Queue[string]
	for _, v := range []string{"a1 1", "a1 2", "a1 3"} {
		q.Push(a1, v)
	}
	q.Push(a2, "a2")
	q.Push(b1, "b1 1")
	q.Push(b1, "b1 2")
	for _, c := range []struct {
		from Client
		want string
	}{
		{Client{"c", 1}, "a1 3"}, // from peers with 4, 2 and none
		{Client{"c", 1}, "a1 2"}, // from peers with 3, 2 and none
		{b1, ""},                 // peers with 2 and 2
		{Client{"a", 3}, ""},     // its connections have one value each
	} {
		if v, ok := q.Displace(c.from); v != c.want || ok != (c.want != "") {
			t.Errorf("%v displaces %q, %t; want %q", c.from, v, ok, c.want)
		}
	}
	q.Push(a1, "a1 4")
	if v, _ := q.Displace(Client{"a", 3}); v != "a1 4" {
		t.Errorf("a connection of the largest peer displaces %q, want a1 4", v)
	}
	if _, ok := (&Queue[string]{}).Displace(a1); ok {
		t.Error("a value was displaced from an empty queue")
	}
}

// Random steps: no value is lost or returned twice, and each connection's values stay in order.
func TestQueueAtRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	type value struct {
		c Client
		n int
	}
	var q Queue[value]
	in := make(map[value]*Waiter[value])
	out := func(v value) {
		if in[v] == nil {
			t.Fatalf("%v is not in the queue", v)
		}
		delete(in, v)
	}
	for n := range 20_000 {
		c := Client{r.IntN(4), r.IntN(12)}
		switch r.IntN(5) {
		case 0, 1:
			in[value{c, n}] = q.Push(c, value{c, n})
		case 2:
			v, ok := q.Next(func(Client) Verdict { return Verdict(r.IntN(3)) })
			if !ok {
				continue
			}
			for w := range in {
				if w.c == v.c && w.n < v.n {
					t.Fatalf("%v comes before %v", v, w)
				}
			}
			out(v)
			if r.IntN(2) == 0 {
				in[v] = q.PushFront(v.c, v)
			}
		case 3:
			if v, ok := q.Displace(c); ok {
				out(v)
			}
		case 4:
			v := value{c, r.IntN(n + 1)}
			if w := in[v]; w != nil {
				if !q.Remove(w) {
					t.Fatalf("%v has left", v)
				}
				out(v)
			}
		}
		if q.Len() != len(in) {
			t.Fatalf("%d wait, want %d", q.Len(), len(in))
		}
	}
}

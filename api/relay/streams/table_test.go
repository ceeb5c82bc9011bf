package streams

import (
	"math/rand/v2"
	"testing"
)

func TestTable(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var table Table[*int]
	want := map[uint32]*int{}
	next := uint32(1)
	for range 20_000 {
		if len(want) < 40 && random.IntN(2) == 0 {
			c := new(int)
			table.Put(next, c)
			want[next] = c
			next += 2
		} else {
			for id := range want {
				table.Remove(id)
				delete(want, id)
				break
			}
		}
		for id, c := range want {
			if table.Get(id) != c {
				t.Fatalf("stream %d is lost", id)
			}
		}
		if table.Get(next) != nil || table.n != len(want) {
			t.Fatal("there is what is not in it")
		}
	}
}

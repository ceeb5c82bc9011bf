package kept

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestQueue(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		q := Queue{Keep: random.IntN(2) == 0}
		var all []byte
		sent := 0
		for range 300 {
			switch n := random.IntN(3000); random.IntN(5) {
			case 0, 1:
				p := make([]byte, n)
				for i := range p {
					p[i] = byte(random.Uint32())
				}
				q.Push(p)
				all = append(all, p...)
			case 2, 3:
				p := q.Peek()
				p = p[:min(n, len(p))]
				if !bytes.Equal(p, all[sent:sent+len(p)]) {
					t.Fatal("other bytes than were pushed")
				}
				q.Advance(len(p))
				sent += len(p)
			default:
				switch {
				case q.Keep && n < 1000:
					q.Rewind()
					sent = 0
				case n < 200:
					if q.Keep {
						q.Release()
					}
				}
			}
			if q.Unsent != len(all)-sent || q.Keep && q.Kept != sent {
				t.Fatalf("unsent %d, kept %d; want %d, %d", q.Unsent, q.Kept, len(all)-sent, sent)
			}
		}
		q.Clear()
	}
}

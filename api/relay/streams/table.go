// Package streams holds the streams of a connection: those that are open, in a [Table], and what a client may still
// send on those that are not, by its [ClientIDs]. It takes no locks: the owner of the connection does.
package streams

// Table maps the ids of a connection's streams to calls. It is a hash table with open addressing and without
// tombstones. Ids count up, so a Go map would fill with deleted places and be rebuilt every so often.
type Table[C any] struct {
	places []Stream[C] // a power of two, at most half in use
	n      int
}

// Stream is a stream and the call that has it.
type Stream[C any] struct {
	ID   uint32 // 0: a free place
	Call C
}

// Len returns the number of streams.
func (t *Table[C]) Len() int { return t.n }

func (t *Table[C]) at(id uint32) int { return int(id>>1) & (len(t.places) - 1) }

// Get returns the call that has a stream, or the zero value.
func (t *Table[C]) Get(id uint32) (c C) {
	if t.n == 0 {
		return c
	}
	for i := t.at(id); t.places[i].ID != 0; i = (i + 1) & (len(t.places) - 1) {
		if t.places[i].ID == id {
			return t.places[i].Call
		}
	}
	return c
}

// Put adds a stream.
func (t *Table[C]) Put(id uint32, c C) {
	if 2*(t.n+1) > len(t.places) {
		old := t.places
		t.places = make([]Stream[C], max(8, 2*len(old)))
		t.n = 0
		for _, s := range old {
			if s.ID != 0 {
				t.Put(s.ID, s.Call)
			}
		}
	}
	i := t.at(id)
	for t.places[i].ID != 0 {
		i = (i + 1) & (len(t.places) - 1)
	}
	t.places[i] = Stream[C]{id, c}
	t.n++
}

// Remove removes a stream, if it is there.
func (t *Table[C]) Remove(id uint32) {
	if t.n == 0 {
		return
	}
	mask := len(t.places) - 1
	i := t.at(id)
	for ; t.places[i].ID != id; i = (i + 1) & mask {
		if t.places[i].ID == 0 {
			return
		}
	}
	t.n--
	// Move up the streams behind the gap, unless their own place lies between the gap and them.
	for j := (i + 1) & mask; t.places[j].ID != 0; j = (j + 1) & mask {
		if (j-t.at(t.places[j].ID))&mask >= (j-i)&mask {
			t.places[i] = t.places[j]
			i = j
		}
	}
	t.places[i] = Stream[C]{}
}

// All returns the current streams.
func (t *Table[C]) All() []Stream[C] {
	all := make([]Stream[C], 0, t.n)
	for _, s := range t.places {
		if s.ID != 0 {
			all = append(all, s)
		}
	}
	return all
}

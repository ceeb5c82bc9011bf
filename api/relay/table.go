package relay

// table maps the ids of a connection's streams to calls. It is a hash table with open addressing and without
// tombstones. Ids count up, so a Go map would fill with deleted places and be rebuilt every so often.
type table[C any] struct {
	places []stream[C] // a power of two, at most half in use
	n      int
}

// stream is a stream and the call that has it.
type stream[C any] struct {
	id   uint32 // 0: a free place
	call C
}

// len returns the number of streams.
func (t *table[C]) len() int { return t.n }

func (t *table[C]) at(id uint32) int { return int(id>>1) & (len(t.places) - 1) }

// get returns the call that has a stream, or the zero value.
func (t *table[C]) get(id uint32) (c C) {
	if t.n == 0 {
		return c
	}
	for i := t.at(id); t.places[i].id != 0; i = (i + 1) & (len(t.places) - 1) {
		if t.places[i].id == id {
			return t.places[i].call
		}
	}
	return c
}

// put adds a stream.
func (t *table[C]) put(id uint32, c C) {
	if 2*(t.n+1) > len(t.places) {
		old := t.places
		t.places = make([]stream[C], max(8, 2*len(old)))
		t.n = 0
		for _, s := range old {
			if s.id != 0 {
				t.put(s.id, s.call)
			}
		}
	}
	i := t.at(id)
	for t.places[i].id != 0 {
		i = (i + 1) & (len(t.places) - 1)
	}
	t.places[i] = stream[C]{id, c}
	t.n++
}

// remove removes a stream, if it is there.
func (t *table[C]) remove(id uint32) {
	if t.n == 0 {
		return
	}
	mask := len(t.places) - 1
	i := t.at(id)
	for ; t.places[i].id != id; i = (i + 1) & mask {
		if t.places[i].id == 0 {
			return
		}
	}
	t.n--
	// Move up the streams behind the gap, unless their own place lies between the gap and them.
	for j := (i + 1) & mask; t.places[j].id != 0; j = (j + 1) & mask {
		if (j-t.at(t.places[j].id))&mask >= (j-i)&mask {
			t.places[i] = t.places[j]
			i = j
		}
	}
	t.places[i] = stream[C]{}
}

// all returns the current streams.
func (t *table[C]) all() []stream[C] {
	all := make([]stream[C], 0, t.n)
	for _, s := range t.places {
		if s.id != 0 {
			all = append(all, s)
		}
	}
	return all
}

package relay

// table finds the calls of a connection by the ids of their streams. It is a hash table of open addressing without
// tombstones: ids count up, so that a Go map would be full of deleted places and be built anew every so often.
type table struct {
	slots []slot // a power of two of them, at most half in use
	n     int
}

type slot struct {
	id   uint32 // 0: free
	call *call
}

func (t *table) at(id uint32) int { return int(id>>1) & (len(t.slots) - 1) }

func (t *table) get(id uint32) *call {
	if t.n == 0 {
		return nil
	}
	for i := t.at(id); t.slots[i].id != 0; i = (i + 1) & (len(t.slots) - 1) {
		if t.slots[i].id == id {
			return t.slots[i].call
		}
	}
	return nil
}

func (t *table) put(id uint32, c *call) {
	if 2*(t.n+1) > len(t.slots) {
		old := t.slots
		t.slots = make([]slot, max(8, 2*len(old)))
		t.n = 0
		for _, s := range old {
			if s.id != 0 {
				t.put(s.id, s.call)
			}
		}
	}
	i := t.at(id)
	for t.slots[i].id != 0 {
		i = (i + 1) & (len(t.slots) - 1)
	}
	t.slots[i] = slot{id, c}
	t.n++
}

func (t *table) remove(id uint32) {
	if t.n == 0 {
		return
	}
	mask := len(t.slots) - 1
	i := t.at(id)
	for ; t.slots[i].id != id; i = (i + 1) & mask {
		if t.slots[i].id == 0 {
			return
		}
	}
	t.n--
	// Those behind move up, where their own place is not between the gap and them.
	for j := (i + 1) & mask; t.slots[j].id != 0; j = (j + 1) & mask {
		if (j-t.at(t.slots[j].id))&mask >= (j-i)&mask {
			t.slots[i] = t.slots[j]
			i = j
		}
	}
	t.slots[i] = slot{}
}

// all returns what is in the table now.
func (t *table) all() []slot {
	all := make([]slot, 0, t.n)
	for _, s := range t.slots {
		if s.id != 0 {
			all = append(all, s)
		}
	}
	return all
}

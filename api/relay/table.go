package relay

// table maps the ids of a connection's streams to calls. It is a hash table with open addressing and without
// tombstones. Ids count up, so a Go map would fill with deleted places and be rebuilt every so often.
type table struct {
	slots []slot // a power of two, at most half in use
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
	// Move up the slots behind the gap, unless their own place lies between the gap and them.
	for j := (i + 1) & mask; t.slots[j].id != 0; j = (j + 1) & mask {
		if (j-t.at(t.slots[j].id))&mask >= (j-i)&mask {
			t.slots[i] = t.slots[j]
			i = j
		}
	}
	t.slots[i] = slot{}
}

// all returns the current slots.
func (t *table) all() []slot {
	all := make([]slot, 0, t.n)
	for _, s := range t.slots {
		if s.id != 0 {
			all = append(all, s)
		}
	}
	return all
}

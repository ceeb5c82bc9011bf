package headers

// table is a dynamic table of fields: new entries are appended, and the oldest are evicted. Their bytes lie in one
// buffer, in the format of a list and in the order of the entries. The buffer is compacted when it would exceed
// twice the table's maximum size. Each entry has a number; numbers count up for the life of the table.
type table struct {
	buf     []byte
	entries []entry // entries[head:] are alive
	head    int
	first   uint64 // number of entries[head]
	size    int    // as RFC 7541 counts it
	max     int
}

type entry struct{ at, len int32 }

func (t *table) len() int { return len(t.entries) - t.head }

// field returns the entry with that number, which must not have been evicted.
func (t *table) field(number uint64) Field {
	e := t.entries[t.head+int(number-t.first)]
	return fieldAt(t.buf[e.at : e.at+e.len])
}

// next returns the number that the next entry gets.
func (t *table) next() uint64 { return t.first + uint64(t.len()) }

// newest returns the i-th newest field, counted from 0.
func (t *table) newest(i int) Field {
	e := t.entries[len(t.entries)-1-i]
	return fieldAt(t.buf[e.at : e.at+e.len])
}

func (t *table) setMax(n int) {
	t.max = n
	t.evict(n)
}

func (t *table) evict(limit int) {
	for t.size > limit && t.len() > 0 {
		e := t.entries[t.head]
		t.size -= int(e.len) - prefix + fieldCost
		t.head++
		t.first++
	}
	if t.len() == 0 {
		t.buf, t.entries, t.head = t.buf[:0], t.entries[:0], 0
	}
}

// add appends a field, whose bytes must not be the table's own. It reports whether the table now contains the
// field: a field larger than the table only empties it.
func (t *table) add(f Field) bool {
	size := f.size()
	if size > t.max {
		t.evict(0)
		return false
	}
	t.evict(t.max - size)
	if len(t.buf)+len(f.raw) > max(2*t.max, 512) {
		t.compact()
	}
	t.entries = append(t.entries, entry{at: int32(len(t.buf)), len: int32(len(f.raw))})
	t.buf = append(t.buf, f.raw...)
	t.size += size
	return true
}

func (t *table) compact() {
	if t.len() == 0 {
		return
	}
	shift := t.entries[t.head].at
	t.buf = t.buf[:copy(t.buf, t.buf[shift:])]
	n := copy(t.entries, t.entries[t.head:])
	t.entries, t.head = t.entries[:n], 0
	for i := range t.entries {
		t.entries[i].at -= shift
	}
}

package headers

import (
	"bytes"
	"hash/maphash"
	"slices"
)

// seed is the seed of the hashes that find fields in an encoder's table.
var seed = maphash.MakeSeed()

// maxIndexed is the maximum size of a field that is worth indexing in a table of 4 KiB.
const maxIndexed = 512

// Encoder encodes the header blocks of one connection, in order. It indexes a field when it sees the field for the
// second time, so that values that differ in each call stay out of the table.
type Encoder struct {
	table   table
	slots   [256]uint32   // number+1 of an entry, by its hash; the neighboring slot on a collision
	seen    [16][4]uint32 // hashes of the fields seen lately, the latest of a set first
	least   int           // the smallest size of the table since the last block, if resized
	resized bool
}

// NewEncoder returns an encoder whose table holds at most size bytes. The peer must have allowed that size, which
// is 4096 until the peer announces another.
func NewEncoder(size int) *Encoder { return &Encoder{table: table{max: size}} }

// SetMax changes the maximum size of the table. The next block announces it to the peer.
func (e *Encoder) SetMax(n int) {
	if n == e.table.max {
		return
	}
	if !e.resized || n < e.least {
		e.least = n
	}
	e.resized = true
	e.table.setMax(n)
}

// Start appends the table size updates that a block must begin with, if any.
func (e *Encoder) Start(dst []byte) []byte {
	if !e.resized {
		return dst
	}
	e.resized = false
	if e.least < e.table.max {
		// Both sizes must be announced. The smaller one is announced as 0, with an empty table, because x/net's
		// decoder accepts a second update only if the table is empty.
		e.table.evict(0)
		dst = append(dst, 0x20)
	}
	return appendInteger(dst, 0x20, 5, e.table.max)
}

// Field appends a field.
func (e *Encoder) Field(dst []byte, f Field) []byte {
	if f.never {
		return e.literal(dst, 0x10, 4, f)
	}
	if i := pseudo(f); i != 0 {
		return append(dst, 0x80|byte(i))
	}
	if len(f.raw) > maxIndexed || private(f.Name()) {
		return e.literal(dst, 0, 4, f)
	}
	h := uint32(maphash.Bytes(seed, f.raw))
	for _, slot := range [2]uint32{h & 255, h&255 ^ 1} {
		// The slot may lead to an evicted entry, or to another entry with the same hash. A number could also wrap
		// at 32 bits, if only in theory. The comparison catches all of these.
		if n := e.slots[slot]; n != 0 {
			number := uint64(n - 1)
			if number >= e.table.first && number < e.table.next() && bytes.Equal(e.table.field(number).raw, f.raw) {
				return appendInteger(dst, 0x80, 7, len(static)+int(e.table.next()-number))
			}
		}
	}
	// With sets of one hash, two fields of all calls could displace each other for ever.
	if set := &e.seen[h>>8&15]; !slices.Contains(set[:], h) {
		copy(set[1:], set[:])
		set[0] = h
		return e.literal(dst, 0, 4, f)
	}
	dst = e.literal(dst, 0x40, 6, f)
	number := e.table.next()
	if e.table.add(f) {
		slot := h & 255
		if n := e.slots[slot]; n != 0 && uint64(n-1) >= e.table.first {
			slot ^= 1
		}
		e.slots[slot] = uint32(number + 1)
	}
	return dst
}

// literal appends the field as a literal of the kind given by first, with a prefix of that many bits.
func (e *Encoder) literal(dst []byte, first byte, bits int, f Field) []byte {
	name := f.Name()
	if i := staticNames[name]; i != 0 {
		dst = appendInteger(dst, first, bits, i)
	} else {
		dst = append(dst, first)
		dst = appendText(dst, name)
	}
	return appendText(dst, f.Value())
}

// pseudo returns the index in the static table of a pseudo-header with a value that gRPC uses, and 0 for other
// fields.
func pseudo(f Field) int {
	if f.name < 5 || f.raw[prefix] != ':' {
		return 0
	}
	switch f.Name() {
	case ":method":
		if f.Value() == "POST" {
			return 3
		}
	case ":scheme":
		switch f.Value() {
		case "http":
			return 6
		case "https":
			return 7
		}
	case ":status":
		if f.Value() == "200" {
			return 8
		}
	}
	return 0
}

// private reports whether values of that name must stay out of the table. Many clients share it, so that a client
// could find out by guessing which values another client sends.
func private(name string) bool {
	return name == "authorization" || name == "cookie" || name == "set-cookie" || name == "proxy-authorization"
}

func appendInteger(dst []byte, first byte, bits, n int) []byte {
	mask := 1<<bits - 1
	if n < mask {
		return append(dst, first|byte(n))
	}
	dst = append(dst, first|byte(mask))
	for n -= mask; n >= 128; n >>= 7 {
		dst = append(dst, 0x80|byte(n&0x7f))
	}
	return append(dst, byte(n))
}

// appendText appends a string without Huffman coding, which would cost more than sending the additional bytes.
func appendText(dst []byte, s string) []byte {
	dst = appendInteger(dst, 0, 7, len(s))
	return append(dst, s...)
}

package headers

import (
	"errors"
	"fmt"

	"golang.org/x/net/http2/hpack"
)

// ErrCompression means that a block is no HPACK; the connection cannot be used further.
var ErrCompression = errors.New("header block is not valid HPACK")

// What is refused here and x/net takes: the first where the table is empty, and of the second a few more bytes. RFC 7541
// has the first (section 4.2), and leaves the length of integers to who reads them (section 5.1).
var (
	errLate = fmt.Errorf("%w: the table's size changes within a block", ErrCompression)
	errLong = fmt.Errorf("%w: an integer of too many bytes", ErrCompression)
)

// Decoder decodes the header blocks of one connection, in their order.
type Decoder struct {
	table   table
	allowed int // the bound of the table that we told the peer
	scratch []byte
	field   List // of a field that is not kept
}

// NewDecoder returns a decoder whose table holds at most size bytes, as the peer was told or knows it to be (4096).
func NewDecoder(size int) *Decoder {
	return &Decoder{table: table{max: size}, allowed: size}
}

// Decode appends the fields of a whole block to l. Fields are left out, and l.Truncated is set, where the list would
// become larger than limit bytes as HTTP/2 counts them; the table is kept in any case.
func (d *Decoder) Decode(block []byte, l *List, limit int) error {
	size := 0
	for start := true; len(block) > 0; {
		b := block[0]
		var err error
		switch {
		case b&0x80 != 0:
			block, err = d.indexed(block, l, &size, limit)
			start = false
		case b&0xe0 == 0x20:
			if !start {
				return errLate
			}
			block, err = d.resize(block)
		default:
			block, err = d.literal(block, l, &size, limit)
			start = false
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Decoder) resize(block []byte) ([]byte, error) {
	n, block, err := integer(block, 5)
	if err != nil {
		return nil, err
	}
	if n > d.allowed {
		return nil, ErrCompression
	}
	d.table.setMax(n)
	return block, nil
}

func (d *Decoder) indexed(block []byte, l *List, size *int, limit int) ([]byte, error) {
	i, block, err := integer(block, 7)
	if err != nil {
		return nil, err
	}
	if i == 0 || i > len(static)+d.table.len() {
		return nil, ErrCompression
	}
	if i <= len(static) {
		s := &static[i-1]
		if over(l, size, limit, len(s.name)+len(s.value)) {
			return block, nil
		}
		l.Add(s.name, s.value)
		return block, nil
	}
	f := d.table.newest(i - len(static) - 1)
	if !over(l, size, limit, f.size()-fieldCost) {
		l.AddField(f)
	}
	return block, nil
}

func (d *Decoder) literal(block []byte, l *List, size *int, limit int) ([]byte, error) {
	bits, index, sensitive := 4, false, false
	switch {
	case block[0]&0xc0 == 0x40:
		bits, index = 6, true
	case block[0]&0xf0 == 0x10:
		sensitive = true
	}
	i, block, err := integer(block, bits)
	if err != nil {
		return nil, err
	}
	if i > len(static)+d.table.len() {
		return nil, ErrCompression
	}
	// The field is built in a list of its own: its name may be that of an entry which its own addition evicts.
	d.scratch = d.scratch[:0]
	switch {
	case i == 0:
		if block, err = d.text(block); err != nil {
			return nil, err
		}
	case i <= len(static):
		d.scratch = append(d.scratch, static[i-1].name...)
	default:
		d.scratch = append(d.scratch, d.table.newest(i-len(static)-1).Name()...)
	}
	name := len(d.scratch)
	if name > MaxName {
		return nil, ErrCompression
	}
	if block, err = d.text(block); err != nil {
		return nil, err
	}
	d.field.Reset()
	d.field.start(name, len(d.scratch)-name, sensitive)
	d.field.b = append(d.field.b, d.scratch...)
	f := fieldAt(d.field.b)
	if !over(l, size, limit, len(d.scratch)) {
		l.AddField(f)
	}
	if index {
		d.table.add(f)
	}
	return block, nil
}

// over counts a field and tells whether it is to be left out.
func over(l *List, size *int, limit, n int) bool {
	*size += n + fieldCost
	if *size > limit {
		l.Truncated = true
	}
	return l.Truncated
}

// text appends a string to the scratch.
func (d *Decoder) text(block []byte) ([]byte, error) {
	if len(block) == 0 {
		return nil, ErrCompression
	}
	huffman := block[0]&0x80 != 0
	n, block, err := integer(block, 7)
	if err != nil {
		return nil, err
	}
	if n > len(block) {
		return nil, ErrCompression
	}
	if !huffman {
		d.scratch = append(d.scratch, block[:n]...)
	} else if _, err := hpack.HuffmanDecode((*sink)(&d.scratch), block[:n]); err != nil {
		return nil, ErrCompression
	}
	return block[n:], nil
}

// sink is a buffer to write to.
type sink []byte

func (s *sink) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}

// mostInteger is more than any length or index that is taken.
const mostInteger = 1 << 28

// integer reads one with a prefix of that many bits.
func integer(b []byte, bits int) (n int, rest []byte, err error) {
	if len(b) == 0 {
		return 0, nil, ErrCompression
	}
	mask := 1<<bits - 1
	n = int(b[0]) & mask
	b = b[1:]
	if n < mask {
		return n, b, nil
	}
	// As wide as it can become, also where an int has 32 bits.
	sum := uint64(n)
	for shift := 0; shift <= 28; shift += 7 {
		if len(b) == 0 {
			return 0, nil, ErrCompression
		}
		c := b[0]
		b = b[1:]
		if sum += uint64(c&0x7f) << shift; sum > mostInteger {
			return 0, nil, ErrCompression
		}
		if c&0x80 == 0 {
			return int(sum), b, nil
		}
	}
	return 0, nil, errLong
}

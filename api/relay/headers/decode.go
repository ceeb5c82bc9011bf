package headers

import (
	"errors"
	"fmt"

	"golang.org/x/net/http2/hpack"
)

// errCompression is returned for a block that is not valid HPACK.
var errCompression = errors.New("header block is not valid HPACK")

// errLate and errLong are returned for blocks that x/net's decoder accepts. It accepts a late size update if the
// table is empty, which RFC 7541 forbids (section 4.2), and integers that are a few bytes longer, whose maximum
// length RFC 7541 leaves to the decoder (section 5.1).
var (
	errLate = fmt.Errorf("%w: the table's size changes within a block", errCompression)
	errLong = fmt.Errorf("%w: an integer of too many bytes", errCompression)
)

// Decoder decodes the header blocks of one connection, in their order.
type Decoder struct {
	table   table
	allowed int // the maximum size of the table that the peer was told
	scratch []byte
	field   List // the literal field being decoded
}

// NewDecoder returns a decoder whose table holds at most size bytes. The peer must know that size, which is 4096
// unless the peer was told another.
func NewDecoder(size int) *Decoder {
	return &Decoder{table: table{max: size}, allowed: size}
}

// Decode appends the fields of a whole block to l. If the list would become larger than limit bytes as HTTP/2
// counts them, Decode leaves out the remaining fields and sets l.Truncated. It updates the table in any case.
// After an error, the decoder cannot be used any further.
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
		return nil, errCompression
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
		return nil, errCompression
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
		return nil, errCompression
	}
	// The field is built in a separate buffer: its name may be that of an entry that adding the field evicts.
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
		return nil, errCompression
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

// over adds a field of n bytes to size and reports whether the field must be left out.
func over(l *List, size *int, limit, n int) bool {
	*size += n + fieldCost
	if *size > limit {
		l.Truncated = true
	}
	return l.Truncated
}

// text decodes a string and appends it to d.scratch.
func (d *Decoder) text(block []byte) ([]byte, error) {
	if len(block) == 0 {
		return nil, errCompression
	}
	huffman := block[0]&0x80 != 0
	n, block, err := integer(block, 7)
	if err != nil {
		return nil, err
	}
	if n > len(block) {
		return nil, errCompression
	}
	if !huffman {
		d.scratch = append(d.scratch, block[:n]...)
	} else if _, err := hpack.HuffmanDecode((*sink)(&d.scratch), block[:n]); err != nil {
		return nil, errCompression
	}
	return block[n:], nil
}

// sink is an io.Writer that appends to a slice.
type sink []byte

func (s *sink) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}

// mostInteger bounds integers. It is larger than any valid length or index.
const mostInteger = 1 << 28

// integer decodes an integer with a prefix of that many bits.
func integer(b []byte, bits int) (n int, rest []byte, err error) {
	if len(b) == 0 {
		return 0, nil, errCompression
	}
	mask := 1<<bits - 1
	n = int(b[0]) & mask
	b = b[1:]
	if n < mask {
		return n, b, nil
	}
	// A uint64 holds every sum, even if an int has 32 bits.
	sum := uint64(n)
	for shift := 0; shift <= 28; shift += 7 {
		if len(b) == 0 {
			return 0, nil, errCompression
		}
		c := b[0]
		b = b[1:]
		if sum += uint64(c&0x7f) << shift; sum > mostInteger {
			return 0, nil, errCompression
		}
		if c&0x80 == 0 {
			return int(sum), b, nil
		}
	}
	return 0, nil, errLong
}

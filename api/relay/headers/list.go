// Package headers holds the header lists of HTTP/2 and codes them as HPACK (RFC 7541).
//
// It exists beside golang.org/x/net/http2/hpack because a relay decodes and encodes headers for each call and must
// not allocate for that. Fields are bytes in one reused buffer, never strings. The encoder adds a field to the
// dynamic table only when it sees the field for the second time, so that a value that differs in each call (a
// timeout, a trace id) evicts nothing. Fuzz tests compare this package with that one.
package headers

import (
	"encoding/binary"
	"unsafe"
)

// prefix is the size of the bytes before a field in a list: the length of its name, with the bit never set if the
// field must never be indexed, and the length of its value.
const (
	prefix = 6
	never  = 1 << 15
)

// fieldCost is the overhead that RFC 7541 adds to the lengths of a name and a value.
const fieldCost = 32

// MaxName is the maximum length of a name.
const MaxName = never - 1

// List is a list of fields in one buffer. The zero value is empty; a list may be used again after [List.Reset].
type List struct {
	b []byte
	// Truncated is set if the decoder left out fields that exceeded its limit.
	Truncated bool
}

// Reset empties the list and keeps its memory.
func (l *List) Reset() { l.b, l.Truncated = l.b[:0], false }

// Bytes returns the bytes of the list, which can be stored and passed to [Of].
func (l *List) Bytes() []byte { return l.b }

// Of returns the list that b holds. b must come from [List.Bytes].
func Of(b []byte) List { return List{b: b} }

// Add appends a field. Its name must not be longer than [MaxName].
func (l *List) Add(name, value string) {
	l.start(len(name), len(value), false)
	l.b = append(l.b, name...)
	l.b = append(l.b, value...)
}

// AddBytes is like Add but takes the value as bytes.
func (l *List) AddBytes(name string, value []byte) {
	l.start(len(name), len(value), false)
	l.b = append(l.b, name...)
	l.b = append(l.b, value...)
}

func (l *List) start(name, value int, sensitive bool) {
	if sensitive {
		name |= never
	}
	l.b = binary.BigEndian.AppendUint16(l.b, uint16(name))
	l.b = binary.BigEndian.AppendUint32(l.b, uint32(value))
}

// Field is a field of a list. It is valid until the list changes.
type Field struct {
	raw   []byte // prefix, name and value
	name  int    // its length
	never bool
}

// Name returns the field's name. The string shares the list's memory: clone it to keep it.
func (f Field) Name() string { return view(f.raw[prefix : prefix+f.name]) }

// Value returns the field's value. The string shares the list's memory too.
func (f Field) Value() string { return view(f.raw[prefix+f.name:]) }

// size returns the field's size as RFC 7541 counts it.
func (f Field) size() int { return len(f.raw) - prefix + fieldCost }

// All ranges over the fields.
func (l *List) All(yield func(Field) bool) {
	for at := 0; at < len(l.b); {
		f := fieldAt(l.b[at:])
		if !yield(f) {
			return
		}
		at += len(f.raw)
	}
}

// Get returns the value of the first field with that name.
func (l *List) Get(name string) (value string, ok bool) {
	for f := range l.All {
		if f.Name() == name {
			return f.Value(), true
		}
	}
	return "", false
}

// AddField appends a field of another list.
func (l *List) AddField(f Field) { l.b = append(l.b, f.raw...) }

func fieldAt(b []byte) Field {
	name := int(binary.BigEndian.Uint16(b))
	value := int(binary.BigEndian.Uint32(b[2:]))
	n := name &^ never
	return Field{raw: b[:prefix+n+value], name: n, never: name&never != 0}
}

func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

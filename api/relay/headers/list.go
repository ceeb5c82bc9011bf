// Package headers holds the header lists of HTTP/2 and codes them as HPACK (RFC 7541).
//
// It exists beside golang.org/x/net/http2/hpack because a relay decodes and encodes headers for each call and must
// not allocate for it: fields are bytes in one buffer that is used again, never strings, and the encoder puts into the
// dynamic table what it sees twice, so that a value which differs in each call (a timeout, a trace id) pushes nothing
// out. Fuzz tests hold it against that package.
package headers

import (
	"encoding/binary"
	"unsafe"
)

// prefix of a field in a list: the length of its name, whose top bit says that it must never be indexed, and that of
// its value.
const (
	prefix = 6
	never  = 1 << 15
)

// fieldCost is what RFC 7541 adds to the length of a name and a value.
const fieldCost = 32

// MaxName bounds the length of a name.
const MaxName = never - 1

// List is a list of fields in one buffer. The zero value is empty; a list may be used again after [List.Reset].
type List struct {
	b []byte
	// Truncated says that the decoder left out what was over its limit.
	Truncated bool
}

// Reset empties the list and keeps its memory.
func (l *List) Reset() { l.b, l.Truncated = l.b[:0], false }

// Bytes is the list as it can be kept and be given to [Of].
func (l *List) Bytes() []byte { return l.b }

// Of is the list that b holds, which came from [List.Bytes].
func Of(b []byte) List { return List{b: b} }

// Add appends a field. Its name must not be longer than [MaxName].
func (l *List) Add(name, value string) {
	l.start(len(name), len(value), false)
	l.b = append(l.b, name...)
	l.b = append(l.b, value...)
}

// AddBytes is Add for bytes.
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

// Field is a field of a list, and is valid as long as that is not changed.
type Field struct {
	raw   []byte // prefix, name and value
	name  int    // its length
	never bool
}

// Name of the field. The string shares the list's memory: keep a clone, if anything.
func (f Field) Name() string { return view(f.raw[prefix : prefix+f.name]) }

// Value of the field, which shares the list's memory as well.
func (f Field) Value() string { return view(f.raw[prefix+f.name:]) }

// Never tells that the field must not get into a table, here or further on.
func (f Field) Never() bool { return f.never }

// size as RFC 7541 counts it.
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

// Get returns the value of the first field of that name.
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

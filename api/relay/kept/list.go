package kept

import (
	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/api/relay/peers"
)

// List is a header list that is kept for a client and counted for it, as long as it is kept. The zero value keeps
// nothing.
type List struct {
	chunk   *chunk // nil if nothing is kept
	account *peers.Account
	kind    peers.Kind
}

// Keep copies a list instead of the one that is kept. A list that no pooled chunk can hold gets a chunk of its own.
func (h *List) Keep(m *peers.Account, kind peers.Kind, l *headers.List) {
	h.Drop()
	n := len(l.Bytes())
	h.account, h.kind = m, kind
	if n > largeChunk {
		h.chunk = &chunk{b: append([]byte(nil), l.Bytes()...)}
	} else {
		h.chunk = newChunk(n)
		h.chunk.b = append(h.chunk.b, l.Bytes()...)
	}
	m.Keep(kind, n)
}

// Drop frees the list, if one is kept.
func (h *List) Drop() {
	if h.chunk != nil {
		h.account.Keep(h.kind, -len(h.chunk.b))
		h.chunk.free()
		*h = List{}
	}
}

// Kept reports whether a list is kept.
func (h *List) Kept() bool { return h.chunk != nil }

// Bytes returns the list, or nil if none is kept.
func (h *List) Bytes() []byte {
	if h.chunk == nil {
		return nil
	}
	return h.chunk.b
}

// Package kept holds the bytes that the relay keeps for calls, in pooled chunks: data that waits to be sent or may have
// to be sent again, and header lists. It takes no locks: the owner of a call does.
package kept

import "sync"

// Chunks hold queued and kept bytes. They come in three sizes, so that a few bytes on each of many idle streams are
// cheap and a full window is not a long list.
const (
	smallChunk  = 256
	middleChunk = 2 << 10
	largeChunk  = 16 << 10
)

type chunk struct {
	next *chunk
	b    []byte // its capacity never changes
}

var (
	smallChunks  = sync.Pool{New: func() any { return &chunk{b: make([]byte, 0, smallChunk)} }}
	middleChunks = sync.Pool{New: func() any { return &chunk{b: make([]byte, 0, middleChunk)} }}
	largeChunks  = sync.Pool{New: func() any { return &chunk{b: make([]byte, 0, largeChunk)} }}
)

// newChunk returns an empty chunk for about n bytes.
func newChunk(n int) *chunk {
	switch {
	case n <= smallChunk:
		return smallChunks.Get().(*chunk)
	case n <= middleChunk:
		return middleChunks.Get().(*chunk)
	}
	return largeChunks.Get().(*chunk)
}

func (c *chunk) free() {
	c.next = nil
	c.b = c.b[:0]
	switch cap(c.b) {
	case smallChunk:
		smallChunks.Put(c)
	case middleChunk:
		middleChunks.Put(c)
	case largeChunk:
		largeChunks.Put(c)
	}
}

// Queue holds the bytes of one direction of a call that wait to be sent. If keep is set, it also holds the bytes
// before them, which have been sent and may have to be sent again. The zero value is empty and keeps nothing.
type Queue struct {
	head, tail *chunk
	at         *chunk // holds the next byte to send, at off; nil if there are no chunks
	off        int
	Unsent     int
	Kept       int // bytes that have been sent and are still here
	Keep       bool
}

// Push appends p.
func (q *Queue) Push(p []byte) {
	q.Unsent += len(p)
	for len(p) > 0 {
		if q.tail == nil || len(q.tail.b) == cap(q.tail.b) {
			c := newChunk(len(p))
			if q.tail == nil {
				q.head = c
			} else {
				q.tail.next = c
			}
			q.tail = c
		}
		if q.at == nil {
			q.at, q.off = q.tail, len(q.tail.b)
		}
		n := copy(q.tail.b[len(q.tail.b):cap(q.tail.b)], p)
		q.tail.b = q.tail.b[:len(q.tail.b)+n]
		p = p[n:]
	}
}

// Peek returns the next bytes to send that are contiguous, or nil if all bytes have been sent.
func (q *Queue) Peek() []byte {
	if q.Unsent == 0 {
		return nil
	}
	for q.off == len(q.at.b) {
		q.at, q.off = q.at.next, 0
	}
	return q.at.b[q.off:]
}

// Advance marks the next n bytes as sent.
func (q *Queue) Advance(n int) {
	q.Unsent -= n
	q.Kept += n
	for n > 0 {
		m := min(n, len(q.at.b)-q.off)
		q.off += m
		n -= m
		if n > 0 {
			q.at, q.off = q.at.next, 0
		}
	}
	if !q.Keep {
		q.drop()
	}
}

// Rewind marks all kept bytes as unsent again.
func (q *Queue) Rewind() {
	q.Unsent += q.Kept
	q.Kept = 0
	q.at, q.off = q.head, 0
}

// Release frees the bytes that have been sent, and stops keeping such bytes.
func (q *Queue) Release() {
	q.Keep = false
	q.drop()
}

// drop frees the bytes that have been sent.
func (q *Queue) drop() {
	q.Kept = 0
	if q.Unsent == 0 {
		q.Clear()
		return
	}
	for q.head != q.at {
		next := q.head.next
		q.head.free()
		q.head = next
	}
}

// Clear frees all bytes.
func (q *Queue) Clear() {
	for q.head != nil {
		next := q.head.next
		q.head.free()
		q.head = next
	}
	*q = Queue{Keep: q.Keep}
}

package wire

import "sync"

// buffer is a pooled buffer of bytes.
type buffer struct{ b []byte }

// readBuffer is the size of one read. It is enough for a frame of the largest size.
const readBuffer = 64 << 10

var (
	readBuffers  = sync.Pool{New: func() any { return &buffer{make([]byte, 0, readBuffer)} }}
	writeBuffers = sync.Pool{New: func() any { return &buffer{make([]byte, 0, 4<<10)} }}
)

// mostPooled is the capacity beyond which a buffer for writing is not used again.
const mostPooled = 512 << 10

func putWriteBuffer(b *buffer) {
	if cap(b.b) > mostPooled {
		return
	}
	b.b = b.b[:0]
	writeBuffers.Put(b)
}

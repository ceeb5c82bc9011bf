package relay

import (
	"encoding/binary"
	"sync"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/headers"
)

// Bounds of an encoded header block, which apply before it is decoded.
const (
	maxBlock         = 64 << 10
	maxContinuations = 32
)

// readBuffer is the size of one read. It is enough for a frame of the largest size.
const readBuffer = 64 << 10

var readBuffers = sync.Pool{New: func() any { return &buffer{make([]byte, 0, readBuffer)} }}

// input is the input of a connection: the bytes that have been read, the frames in them, and the header block whose
// frames are arriving. Every byte is part of exactly one frame, and no frame stands between those of a header block.
// It holds a buffer only while bytes of an incomplete frame wait in it. Only the connection's reader uses it.
type input struct {
	most    int     // the largest header list
	buf     *buffer // bytes that are read; nil if there are none
	at      int     // the bytes of buf before this one are handled
	greeted bool    // the first SETTINGS have arrived
	block   block
	dec     *headers.Decoder
	list    headers.List // of the latest block that was complete
}

// block is a header block whose frames are arriving.
type block struct {
	b     []byte
	id    uint32 // 0: none is open
	end   bool
	parts int
}

func newInput(most int) input { return input{most: most, dec: headers.NewDecoder(tableSize)} }

// read reads from the socket until it or arrived returns an error. It calls arrived after each read, with the number
// of bytes, which are in the buffer.
func (in *input) read(s *socket, arrived func(n int) error) error {
	if s.raw != nil {
		return s.readRaw(in, arrived)
	}
	return in.readPlain(s, arrived)
}

// readPlain is the read loop for a socket that has only blocking reads. It reads the first byte on its own, since an
// idle connection must not hold a buffer.
func (in *input) readPlain(s *socket, arrived func(n int) error) error {
	first := make([]byte, 1)
	for {
		n, err := in.readNext(s, first)
		if n > 0 {
			if err := arrived(n); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		in.release()
	}
}

// readNext reads into the buffer, after the bytes in it. If there is no buffer, it reads a single byte.
func (in *input) readNext(s *socket, first []byte) (n int, err error) {
	if in.buf != nil {
		return s.nc.Read(in.space())
	}
	if n, err = s.nc.Read(first); n > 0 {
		copy(in.space(), first)
	}
	return n, err
}

// space returns the part of the buffer that is free.
func (in *input) space() []byte {
	if in.buf == nil {
		in.buf = readBuffers.Get().(*buffer)
	}
	return in.buf.b[len(in.buf.b):cap(in.buf.b)]
}

// release gives up the buffer if it is empty.
func (in *input) release() {
	if in.buf != nil && len(in.buf.b) == 0 {
		readBuffers.Put(in.buf)
		in.buf = nil
	}
}

// add adds n bytes that have been read into the free part of the buffer.
func (in *input) add(n int) { in.buf.b = in.buf.b[:len(in.buf.b)+n] }

// bytes returns the bytes that have not been handled.
func (in *input) bytes() []byte { return in.buf.b[in.at:] }

// skip marks n bytes as handled.
func (in *input) skip(n int) { in.at += n }

// discard marks all bytes as handled.
func (in *input) discard() { in.at = len(in.buf.b) }

// next returns the next frame, which is valid until compact is called. ok is false if it is not whole yet.
func (in *input) next() (f frame, ok bool, err error) {
	f, rest, ok, err := nextFrame(in.bytes())
	in.at = len(in.buf.b) - len(rest)
	return f, ok, err
}

// compact frees the bytes that have been handled.
func (in *input) compact() {
	in.buf.b = in.buf.b[:copy(in.buf.b, in.bytes())]
	in.at = 0
}

// drop drops everything that has arrived in part.
func (in *input) drop() { in.buf, in.at, in.block = nil, 0, block{} }

// check checks that a frame may follow those before it.
func (in *input) check(f *frame) error {
	if !in.greeted {
		if f.kind != http2.FrameSettings || f.flags&http2.FlagSettingsAck != 0 {
			return connError{http2.ErrCodeProtocol, "the first frame is not SETTINGS"}
		}
		in.greeted = true
	}
	if in.block.id != 0 && (f.kind != http2.FrameContinuation || f.id != in.block.id) {
		return connError{http2.ErrCodeProtocol, "a header block is interrupted"}
	}
	return nil
}

// headers handles a HEADERS frame. If that is a whole header block, headers decodes it into list and returns its
// stream; otherwise it returns the id 0.
func (in *input) headers(f frame) (id uint32, end bool, err error) {
	if f.id == 0 {
		return 0, false, connError{http2.ErrCodeProtocol, "HEADERS on stream 0"}
	}
	if err := unpad(&f); err != nil {
		return 0, false, err
	}
	if f.flags&http2.FlagHeadersPriority != 0 {
		if len(f.payload) < 5 {
			return 0, false, connError{http2.ErrCodeFrameSize, "HEADERS without its priority"}
		}
		if binary.BigEndian.Uint32(f.payload)&maxID == f.id {
			return 0, false, connError{http2.ErrCodeProtocol, "a stream that depends on itself"}
		}
		f.payload = f.payload[5:]
	}
	end = f.flags&http2.FlagHeadersEndStream != 0
	if f.flags&http2.FlagHeadersEndHeaders != 0 {
		return f.id, end, in.decode(f.payload)
	}
	in.block.id, in.block.end, in.block.parts = f.id, end, 0
	in.block.b = append(in.block.b[:0], f.payload...)
	return 0, false, nil
}

// continuation handles a CONTINUATION frame, with the results of headers.
func (in *input) continuation(f frame) (id uint32, end bool, err error) {
	if in.block.id == 0 {
		return 0, false, connError{http2.ErrCodeProtocol, "CONTINUATION without HEADERS"}
	}
	in.block.parts++
	if len(in.block.b)+len(f.payload) > maxBlock || in.block.parts > maxContinuations {
		return 0, false, connError{http2.ErrCodeEnhanceYourCalm, "header block too large"}
	}
	in.block.b = append(in.block.b, f.payload...)
	if f.flags&http2.FlagContinuationEndHeaders == 0 {
		return 0, false, nil
	}
	whole := in.block
	in.block = block{}
	return whole.id, whole.end, in.decode(whole.b)
}

// decode decodes a header block into list.
func (in *input) decode(fragment []byte) error {
	in.list.Reset()
	if err := in.dec.Decode(fragment, &in.list, in.most); err != nil {
		return connError{http2.ErrCodeCompression, err.Error()}
	}
	return nil
}

// head reports whether a head is arriving: a header block, or a frame other than DATA.
func (in *input) head() bool { return in.block.id != 0 || in.buf != nil && partOfHead(in.buf.b) }

// partOfHead reports whether b is the beginning of a frame that is not DATA, or may be one.
func partOfHead(b []byte) bool {
	return len(b) > 0 && (len(b) < frameHeader || http2.FrameType(b[3]) != http2.FrameData)
}

// held returns the bytes held for an incomplete frame and for an incomplete header block.
func (in *input) held() int {
	n := cap(in.block.b)
	if in.buf != nil && len(in.buf.b) > 0 {
		n += readBuffer
	}
	return n
}

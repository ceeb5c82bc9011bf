package wire

import (
	"encoding/binary"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/headers"
)

// Bounds of an encoded header block, which apply before it is decoded.
const (
	maxBlock         = 64 << 10
	maxContinuations = 32
)

// Input is the input of a connection: the bytes that have been read, the frames in them, and the header block whose
// frames are arriving. Every byte is part of exactly one frame, and no frame stands between those of a header block.
// It holds a buffer only while bytes of an incomplete frame wait in it. Only the connection's reader uses it.
type Input struct {
	most    int     // the largest header list
	buf     *buffer // bytes that are read; nil if there are none
	at      int     // the bytes of buf before this one are handled
	greeted bool    // the first SETTINGS have arrived
	block   block
	dec     *headers.Decoder
	List    headers.List // of the latest block that was complete
}

// block is a header block whose frames are arriving.
type block struct {
	b     []byte
	id    uint32 // 0: none is open
	end   bool
	parts int
}

// NewInput returns the input of a connection on which header lists have at most most bytes, as HTTP/2 counts them.
func NewInput(most int) Input { return Input{most: most, dec: headers.NewDecoder(frames.TableSize)} }

// Read reads from the socket until it or arrived returns an error. It calls arrived after each read.
func (in *Input) Read(s *Socket, arrived func() error) error {
	if s.raw != nil {
		return in.readRaw(s, arrived)
	}
	return in.readPlain(s, arrived)
}

// readRaw is the read loop for a socket whose reads need not block. The input holds a buffer only while there is data
// in it.
func (in *Input) readRaw(s *Socket, arrived func() error) error {
	var failure error
	err := s.raw.Read(func(fd uintptr) (done bool) {
		failure = in.readAvailable(fd, arrived)
		return failure != nil
	})
	if failure != nil {
		return failure
	}
	return err
}

// readAvailable reads all data that is available. It returns nil if more may follow.
func (in *Input) readAvailable(fd uintptr, arrived func() error) error {
	for {
		n, err := tryRead(fd, in.space())
		switch {
		case err != nil:
			return err
		case n == 0:
			in.release()
			return nil
		}
		in.add(n)
		if err := arrived(); err != nil {
			return err
		}
	}
}

// readPlain is the read loop for a socket that has only blocking reads. It reads the first byte on its own, since an
// idle connection must not hold a buffer.
func (in *Input) readPlain(s *Socket, arrived func() error) error {
	first := make([]byte, 1)
	for {
		n, err := in.readNext(s, first)
		if n > 0 {
			in.add(n)
			if err := arrived(); err != nil {
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
func (in *Input) readNext(s *Socket, first []byte) (n int, err error) {
	if in.buf != nil {
		return s.Conn.Read(in.space())
	}
	if n, err = s.Conn.Read(first); n > 0 {
		copy(in.space(), first)
	}
	return n, err
}

// space returns the part of the buffer that is free.
func (in *Input) space() []byte {
	if in.buf == nil {
		in.buf = readBuffers.Get().(*buffer)
	}
	return in.buf.b[len(in.buf.b):cap(in.buf.b)]
}

// release gives up the buffer if it is empty.
func (in *Input) release() {
	if in.buf != nil && len(in.buf.b) == 0 {
		readBuffers.Put(in.buf)
		in.buf = nil
	}
}

// add adds n bytes that have been read into the free part of the buffer.
func (in *Input) add(n int) { in.buf.b = in.buf.b[:len(in.buf.b)+n] }

// Bytes returns the bytes that have not been handled.
func (in *Input) Bytes() []byte { return in.buf.b[in.at:] }

// Skip marks n bytes as handled.
func (in *Input) Skip(n int) { in.at += n }

// Discard marks all bytes as handled.
func (in *Input) Discard() { in.at = len(in.buf.b) }

// Next returns the next frame, which is valid until Compact is called. ok is false if it is not whole yet.
func (in *Input) Next() (f frames.Frame, ok bool, err error) {
	f, rest, ok, err := frames.Next(in.Bytes())
	in.at = len(in.buf.b) - len(rest)
	return f, ok, err
}

// Compact frees the bytes that have been handled.
func (in *Input) Compact() {
	in.buf.b = in.buf.b[:copy(in.buf.b, in.Bytes())]
	in.at = 0
}

// Drop drops everything that has arrived in part.
func (in *Input) Drop() { in.buf, in.at, in.block = nil, 0, block{} }

// Check checks that a frame may follow those before it.
func (in *Input) Check(f *frames.Frame) error {
	if !in.greeted {
		if f.Kind != http2.FrameSettings || f.Flags&http2.FlagSettingsAck != 0 {
			return frames.Fault(http2.ErrCodeProtocol, "the first frame is not SETTINGS")
		}
		in.greeted = true
	}
	if in.block.id != 0 && (f.Kind != http2.FrameContinuation || f.ID != in.block.id) {
		return frames.Fault(http2.ErrCodeProtocol, "a header block is interrupted")
	}
	return nil
}

// Headers handles a HEADERS frame. If that is a whole header block, Headers decodes it into List and returns its
// stream; otherwise it returns the id 0.
func (in *Input) Headers(f frames.Frame) (id uint32, end bool, err error) {
	if f.ID == 0 {
		return 0, false, frames.Fault(http2.ErrCodeProtocol, "HEADERS on stream 0")
	}
	if err := frames.Unpad(&f); err != nil {
		return 0, false, err
	}
	if f.Flags&http2.FlagHeadersPriority != 0 {
		if len(f.Payload) < 5 {
			return 0, false, frames.Fault(http2.ErrCodeFrameSize, "HEADERS without its priority")
		}
		if binary.BigEndian.Uint32(f.Payload)&frames.MaxID == f.ID {
			return 0, false, frames.Fault(http2.ErrCodeProtocol, "a stream that depends on itself")
		}
		f.Payload = f.Payload[5:]
	}
	end = f.Flags&http2.FlagHeadersEndStream != 0
	if f.Flags&http2.FlagHeadersEndHeaders != 0 {
		return f.ID, end, in.decode(f.Payload)
	}
	in.block.id, in.block.end, in.block.parts = f.ID, end, 0
	in.block.b = append(in.block.b[:0], f.Payload...)
	return 0, false, nil
}

// Continuation handles a CONTINUATION frame, with the results of Headers.
func (in *Input) Continuation(f frames.Frame) (id uint32, end bool, err error) {
	if in.block.id == 0 {
		return 0, false, frames.Fault(http2.ErrCodeProtocol, "CONTINUATION without HEADERS")
	}
	in.block.parts++
	if len(in.block.b)+len(f.Payload) > maxBlock || in.block.parts > maxContinuations {
		return 0, false, frames.Fault(http2.ErrCodeEnhanceYourCalm, "header block too large")
	}
	in.block.b = append(in.block.b, f.Payload...)
	if f.Flags&http2.FlagContinuationEndHeaders == 0 {
		return 0, false, nil
	}
	whole := in.block
	in.block = block{}
	return whole.id, whole.end, in.decode(whole.b)
}

// decode decodes a header block into List.
func (in *Input) decode(fragment []byte) error {
	in.List.Reset()
	if err := in.dec.Decode(fragment, &in.List, in.most); err != nil {
		return frames.Fault(http2.ErrCodeCompression, err.Error())
	}
	return nil
}

// Head reports whether a head is arriving: a header block, or a frame other than DATA.
func (in *Input) Head() bool { return in.block.id != 0 || in.buf != nil && partOfHead(in.buf.b) }

// partOfHead reports whether b is the beginning of a frame that is not DATA, or may be one.
func partOfHead(b []byte) bool {
	return len(b) > 0 && (len(b) < frames.HeaderSize || http2.FrameType(b[3]) != http2.FrameData)
}

// Kept returns the bytes kept for an incomplete frame and for an incomplete header block.
func (in *Input) Kept() int {
	n := cap(in.block.b)
	if in.buf != nil && len(in.buf.b) > 0 {
		n += readBuffer
	}
	return n
}

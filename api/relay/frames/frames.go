// Package frames reads and writes the frames of HTTP/2 (RFC 9113), and checks each by itself. It works on bytes and
// knows no connection. A violation of HTTP/2 by the peer is a [ConnError].
package frames

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

const (
	// HeaderSize is the size of the header of a frame.
	HeaderSize = 9
	// MaxFrame is the largest payload that the relay accepts, and the largest that it sends even if the peer
	// accepts more, so that streams of one connection alternate as they do without a relay.
	MaxFrame = 16 << 10
	// MaxID is the greatest id of a stream.
	MaxID = 1<<31 - 1
	// MaxWindow is the largest flow-control window.
	MaxWindow = 1<<31 - 1
	// FirstWindow is the initial size of a window.
	FirstWindow = 65535
)

// Frame is a frame's header and its payload, which lies in the read buffer.
type Frame struct {
	Kind    http2.FrameType
	Flags   http2.Flags
	ID      uint32
	Payload []byte
}

// Next splits the first frame off b. ok is false if b does not hold all of the frame. err is set if the frame
// is larger than MaxFrame.
func Next(b []byte) (f Frame, rest []byte, ok bool, err error) {
	if len(b) < HeaderSize {
		return f, b, false, nil
	}
	n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	if n > MaxFrame {
		return f, b, false, ConnError{http2.ErrCodeFrameSize, "frame too large"}
	}
	if len(b) < HeaderSize+n {
		return f, b, false, nil
	}
	f.Kind = http2.FrameType(b[3])
	f.Flags = http2.Flags(b[4])
	f.ID = binary.BigEndian.Uint32(b[5:]) & MaxID
	f.Payload = b[HeaderSize : HeaderSize+n]
	return f, b[HeaderSize+n:], true, nil
}

// ConnError is an error that ends a connection.
type ConnError struct {
	Code   http2.ErrCode
	Reason string
}

// Fault returns the error that ends the connection of a peer that has violated HTTP/2.
func Fault(code http2.ErrCode, reason string) ConnError { return ConnError{code, reason} }

func (e ConnError) Error() string { return e.Code.String() + ": " + e.Reason }

// Unpad removes the padding from the payload of a DATA or HEADERS frame.
func Unpad(f *Frame) error {
	if f.Flags&http2.FlagDataPadded == 0 {
		return nil
	}
	if len(f.Payload) == 0 {
		return ConnError{http2.ErrCodeFrameSize, "padded frame without the length of its padding"}
	}
	pad := int(f.Payload[0])
	p := f.Payload[1:]
	if pad > len(p) {
		return ConnError{http2.ErrCodeProtocol, "padding longer than its frame"}
	}
	f.Payload = p[:len(p)-pad]
	return nil
}

// ParseReset returns the code of an RST_STREAM frame.
func ParseReset(f Frame) (http2.ErrCode, error) {
	if len(f.Payload) != 4 {
		return 0, ConnError{http2.ErrCodeFrameSize, "RST_STREAM of a wrong size"}
	}
	return http2.ErrCode(binary.BigEndian.Uint32(f.Payload)), nil
}

// ParseWindowUpdate returns the bytes of a WINDOW_UPDATE frame, which are not 0 if the frame is about the connection.
func ParseWindowUpdate(f Frame) (n int, err error) {
	if len(f.Payload) != 4 {
		return 0, ConnError{http2.ErrCodeFrameSize, "WINDOW_UPDATE of a wrong size"}
	}
	n = int(binary.BigEndian.Uint32(f.Payload) & MaxID)
	if f.ID == 0 && n == 0 {
		return 0, ConnError{http2.ErrCodeProtocol, "WINDOW_UPDATE of nothing"}
	}
	return n, nil
}

// ParsePing returns the data of a PING frame.
func ParsePing(f Frame) (data [8]byte, ack bool, err error) {
	switch {
	case f.ID != 0:
		return data, false, ConnError{http2.ErrCodeProtocol, "PING on a stream"}
	case len(f.Payload) != 8:
		return data, false, ConnError{http2.ErrCodeFrameSize, "PING of a wrong size"}
	}
	return [8]byte(f.Payload), f.Flags&http2.FlagPingAck != 0, nil
}

// ParseGoAway returns the newest stream that the sender of a GOAWAY frame may still serve.
func ParseGoAway(f Frame) (last uint32, err error) {
	switch {
	case f.ID != 0:
		return 0, ConnError{http2.ErrCodeProtocol, "GOAWAY on a stream"}
	case len(f.Payload) < 8:
		return 0, ConnError{http2.ErrCodeFrameSize, "GOAWAY of a wrong size"}
	}
	return binary.BigEndian.Uint32(f.Payload) & MaxID, nil
}

// CheckOther checks a frame of a kind that the relay does not use.
func CheckOther(f Frame) error {
	switch f.Kind {
	case http2.FramePushPromise:
		return ConnError{http2.ErrCodeProtocol, "PUSH_PROMISE"}
	case http2.FramePriority:
		switch {
		case f.ID == 0:
			return ConnError{http2.ErrCodeProtocol, "PRIORITY on stream 0"}
		case len(f.Payload) != 5:
			return ConnError{http2.ErrCodeFrameSize, "PRIORITY of a wrong size"}
		case binary.BigEndian.Uint32(f.Payload)&MaxID == f.ID:
			return ConnError{http2.ErrCodeProtocol, "a stream that depends on itself"}
		}
	default:
	}
	return nil
}

// AppendHeader appends the header of a frame whose payload has n bytes.
func AppendHeader(b []byte, n int, kind http2.FrameType, flags http2.Flags, id uint32) []byte {
	return append(b, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags),
		byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

// AppendReset appends RST_STREAM.
func AppendReset(b []byte, id uint32, code http2.ErrCode) []byte {
	b = AppendHeader(b, 4, http2.FrameRSTStream, 0, id)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

// AppendWindowUpdate appends n bytes of credit for a stream, or for the connection if id is 0.
func AppendWindowUpdate(b []byte, id uint32, n int) []byte {
	b = AppendHeader(b, 4, http2.FrameWindowUpdate, 0, id)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// AppendPing appends a PING, or the answer to one.
func AppendPing(b []byte, ack bool, data [8]byte) []byte {
	var flags http2.Flags
	if ack {
		flags = http2.FlagPingAck
	}
	b = AppendHeader(b, 8, http2.FramePing, flags, 0)
	return append(b, data[:]...)
}

// AppendGoAway appends a GOAWAY that names the newest stream that is served.
func AppendGoAway(b []byte, last uint32, code http2.ErrCode, reason string) []byte {
	b = AppendHeader(b, 8+len(reason), http2.FrameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, reason...)
}

// AppendSettings appends SETTINGS.
func AppendSettings(b []byte, settings ...http2.Setting) []byte {
	b = AppendHeader(b, 6*len(settings), http2.FrameSettings, 0, 0)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, uint16(s.ID))
		b = binary.BigEndian.AppendUint32(b, s.Val)
	}
	return b
}

// AppendSettingsAck appends the acknowledgment of SETTINGS.
func AppendSettingsAck(b []byte) []byte {
	return AppendHeader(b, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
}

// SealHeaders turns a header block into frames. The block was appended to b after room for a frame header at
// position at. It becomes one HEADERS frame, and CONTINUATION frames if the block is larger than [MaxFrame].
func SealHeaders(b []byte, at int, id uint32, end bool) []byte {
	var flags http2.Flags
	if end {
		flags = http2.FlagHeadersEndStream
	}
	n := len(b) - at - HeaderSize
	if n <= MaxFrame {
		AppendHeader(b[:at], n, http2.FrameHeaders, flags|http2.FlagHeadersEndHeaders, id)
		return b
	}
	block := append([]byte(nil), b[at+HeaderSize:]...)
	b = AppendHeader(b[:at], MaxFrame, http2.FrameHeaders, flags, id)
	b = append(b, block[:MaxFrame]...)
	for block = block[MaxFrame:]; len(block) > 0; {
		part := block[:min(MaxFrame, len(block))]
		block = block[len(part):]
		flags = 0
		if len(block) == 0 {
			flags = http2.FlagContinuationEndHeaders
		}
		b = AppendHeader(b, len(part), http2.FrameContinuation, flags, id)
		b = append(b, part...)
	}
	return b
}

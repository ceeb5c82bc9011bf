package relay

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

const (
	frameHeader = 9
	// maxFrame is the largest payload that we take, and the largest that we send whatever the peer would take: so that
	// streams of one connection alternate, as they do without a relay.
	maxFrame = 16 << 10
	maxID    = 1<<31 - 1
	// maxWindow is the largest flow-control window there is.
	maxWindow = 1<<31 - 1
	// firstWindow is what a window is until something else is said.
	firstWindow = 65535
)

// frame is the header of one, and its payload, which lies in the read buffer.
type frame struct {
	kind    http2.FrameType
	flags   http2.Flags
	id      uint32
	payload []byte
}

// nextFrame splits the first frame off b. It returns ok false where b does not hold all of it, and an error where it
// is larger than we allow.
func nextFrame(b []byte) (f frame, rest []byte, ok bool, err error) {
	if len(b) < frameHeader {
		return f, b, false, nil
	}
	n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	if n > maxFrame {
		return f, b, false, connError{http2.ErrCodeFrameSize, "frame too large"}
	}
	if len(b) < frameHeader+n {
		return f, b, false, nil
	}
	f.kind = http2.FrameType(b[3])
	f.flags = http2.Flags(b[4])
	f.id = binary.BigEndian.Uint32(b[5:]) & maxID
	f.payload = b[frameHeader : frameHeader+n]
	return f, b[frameHeader+n:], true, nil
}

// connError ends a connection.
type connError struct {
	code   http2.ErrCode
	reason string
}

func (e connError) Error() string { return e.code.String() + ": " + e.reason }

// unpad takes the padding off the payload of a DATA or HEADERS frame.
func unpad(f *frame) error {
	if f.flags&http2.FlagDataPadded == 0 {
		return nil
	}
	if len(f.payload) == 0 {
		return connError{http2.ErrCodeFrameSize, "padded frame without the length of its padding"}
	}
	pad := int(f.payload[0])
	p := f.payload[1:]
	if pad > len(p) {
		return connError{http2.ErrCodeProtocol, "padding longer than its frame"}
	}
	f.payload = p[:len(p)-pad]
	return nil
}

func appendFrameHeader(b []byte, n int, kind http2.FrameType, flags http2.Flags, id uint32) []byte {
	return append(b, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags), byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func appendRST(b []byte, id uint32, code http2.ErrCode) []byte {
	b = appendFrameHeader(b, 4, http2.FrameRSTStream, 0, id)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

func appendWindowUpdate(b []byte, id uint32, n int) []byte {
	b = appendFrameHeader(b, 4, http2.FrameWindowUpdate, 0, id)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

func appendPing(b []byte, ack bool, data [8]byte) []byte {
	var flags http2.Flags
	if ack {
		flags = http2.FlagPingAck
	}
	b = appendFrameHeader(b, 8, http2.FramePing, flags, 0)
	return append(b, data[:]...)
}

func appendGoAway(b []byte, last uint32, code http2.ErrCode, reason string) []byte {
	b = appendFrameHeader(b, 8+len(reason), http2.FrameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, reason...)
}

func appendSettings(b []byte, settings ...http2.Setting) []byte {
	b = appendFrameHeader(b, 6*len(settings), http2.FrameSettings, 0, 0)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, uint16(s.ID))
		b = binary.BigEndian.AppendUint32(b, s.Val)
	}
	return b
}

func appendSettingsAck(b []byte) []byte {
	return appendFrameHeader(b, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
}

// sealHeaders makes frames of a header block that was appended to b behind room for a frame header at position at:
// one HEADERS frame, and CONTINUATION frames where it is larger than most.
func sealHeaders(b []byte, at int, id uint32, end bool, most int) []byte {
	var flags http2.Flags
	if end {
		flags = http2.FlagHeadersEndStream
	}
	n := len(b) - at - frameHeader
	if n <= most {
		appendFrameHeader(b[:at], n, http2.FrameHeaders, flags|http2.FlagHeadersEndHeaders, id)
		return b
	}
	block := append([]byte(nil), b[at+frameHeader:]...)
	b = appendFrameHeader(b[:at], most, http2.FrameHeaders, flags, id)
	b = append(b, block[:most]...)
	for block = block[most:]; len(block) > 0; {
		part := block[:min(most, len(block))]
		block = block[len(part):]
		flags = 0
		if len(block) == 0 {
			flags = http2.FlagContinuationEndHeaders
		}
		b = appendFrameHeader(b, len(part), http2.FrameContinuation, flags, id)
		b = append(b, part...)
	}
	return b
}

package wire

import (
	"slices"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/headers"
)

// Pending is the part of an output that is written next. Header blocks are encoded for a peer that has decoded all
// earlier ones (HPACK), so all output is written in the order in which it was appended. The connection's lock guards
// it.
type Pending struct {
	buf *buffer // nil if nothing was appended since the last take
	enc *headers.Encoder
}

// Len returns the number of bytes.
func (p *Pending) Len() int {
	if p.buf == nil {
		return 0
	}
	return len(p.buf.b)
}

// bytes returns the bytes, to be appended to.
func (p *Pending) bytes() *[]byte {
	if p.buf == nil {
		p.buf = writeBuffers.Get().(*buffer)
	}
	return &p.buf.b
}

// take removes and returns all bytes; nil if there are none.
func (p *Pending) take() *buffer {
	buf := p.buf
	p.buf = nil
	return buf
}

// AppendHeaders appends a header block with the fields of lists.
func (p *Pending) AppendHeaders(id uint32, end bool, lists ...[]byte) {
	b := p.bytes()
	at := len(*b)
	out := append(*b, make([]byte, frames.HeaderSize)...)
	out = p.enc.Start(out)
	for _, list := range lists {
		l := headers.Of(list)
		for f := range l.All {
			out = p.enc.Field(out, f)
		}
	}
	*b = frames.SealHeaders(out, at, id, end)
}

// AppendData appends the data of a stream, which is no longer than [frames.MaxFrame].
func (p *Pending) AppendData(id uint32, data []byte, end bool) {
	var flags http2.Flags
	if end {
		flags = http2.FlagDataEndStream
	}
	b := p.bytes()
	*b = append(frames.AppendHeader(*b, len(data), http2.FrameData, flags, id), data...)
}

// AppendReset appends RST_STREAM for a stream.
func (p *Pending) AppendReset(id uint32, code http2.ErrCode) {
	b := p.bytes()
	*b = frames.AppendReset(*b, id, code)
}

// AppendWindowUpdate appends n bytes of credit for a stream, or for the connection if id is 0.
func (p *Pending) AppendWindowUpdate(id uint32, n int) {
	b := p.bytes()
	*b = frames.AppendWindowUpdate(*b, id, n)
}

// AppendPing appends a PING, or the answer to one.
func (p *Pending) AppendPing(ack bool, data [8]byte) {
	b := p.bytes()
	*b = frames.AppendPing(*b, ack, data)
}

// AppendGoAway appends a GOAWAY that names the newest stream that is served.
func (p *Pending) AppendGoAway(last uint32, code http2.ErrCode, reason string) {
	b := p.bytes()
	*b = frames.AppendGoAway(*b, last, code, reason)
}

// AppendSettings appends SETTINGS.
func (p *Pending) AppendSettings(settings ...http2.Setting) {
	b := p.bytes()
	*b = frames.AppendSettings(*b, settings...)
}

// Acknowledge appends the acknowledgment of SETTINGS, after which header blocks obey them.
func (p *Pending) Acknowledge(s frames.Settings) {
	b := p.bytes()
	*b = frames.AppendSettingsAck(*b)
	p.enc.SetMax(s.Least)
	p.enc.SetMax(s.Table)
}

// AppendText appends text that is not a frame.
func (p *Pending) AppendText(text string) {
	b := p.bytes()
	*b = append(*b, text...)
}

// Prepend inserts bytes before all others.
func (p *Pending) Prepend(first []byte) {
	b := p.bytes()
	*b = slices.Insert(*b, 0, first...)
}

// Drop drops all bytes. The peer must get no further header blocks.
func (p *Pending) Drop() {
	if p.buf != nil {
		p.buf.b = p.buf.b[:0]
	}
}

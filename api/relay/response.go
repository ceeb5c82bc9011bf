package relay

import (
	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/headers"
)

// answer is what the headers of an answer say to the relay.
type answer struct {
	status    int // of HTTP; 0 where there is none
	grpc      bool
	coded     bool // there is a grpc-status
	code      uint32
	malformed bool
}

// readAnswer looks through the headers or trailers of an answer and appends to out those that are passed on.
func readAnswer(l, out *headers.List) (a answer) {
	regular := false
	for f := range l.All {
		name, value := f.Name(), f.Value()
		if !fieldName(name) || !fieldValue(value) {
			a.malformed = true
			return a
		}
		if name[0] == ':' {
			if name != ":status" || regular || a.status != 0 || len(value) != 3 {
				a.malformed = true
				return a
			}
			for i := range len(value) {
				if value[i] < '0' || value[i] > '9' {
					a.malformed = true
				}
				a.status = 10*a.status + int(value[i]-'0')
			}
			out.AddField(f)
			continue
		}
		regular = true
		switch name {
		case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te":
			continue
		case "content-type":
			a.grpc = isGRPC(value)
		case "grpc-status":
			a.coded, a.code = true, codeOfStatus(value)
		}
		out.AddField(f)
	}
	return a
}

// downHeaders is a header block from the backend.
func (k *call) downHeaders(b *batch, l *headers.List, end bool) {
	if k.down.ended {
		k.violated(b, k.backend, http2.ErrCodeStreamClosed)
		return
	}
	passed := &k.backend.passed
	passed.Reset()
	a := readAnswer(l, passed)
	switch {
	case a.malformed || l.Truncated:
		k.garbage(b, http2.ErrCodeProtocol, "headers that HTTP/2 does not allow")
	case k.started:
		if a.status != 0 || !end {
			k.garbage(b, http2.ErrCodeProtocol, "a second set of headers")
			return
		}
		k.finish(b, passed, a)
	case a.status < 100:
		k.garbage(b, http2.ErrCodeProtocol, "headers without a status of HTTP")
	case a.status < 200:
		if end || a.status == 101 {
			k.garbage(b, http2.ErrCodeProtocol, "an end within what is to come")
			return
		}
		k.client.sendHeaders(b, k.clientID, passed.Bytes(), false)
	case end:
		k.plain = a.status != 200 || !a.coded
		k.finish(b, passed, a)
	default:
		k.plain = a.status != 200 || !a.grpc
		k.start(b)
		k.client.sendHeaders(b, k.clientID, passed.Bytes(), false)
	}
}

// start notes that the answer has begun: the call has been seen, and will not be sent again.
func (k *call) start(b *batch) {
	k.started = true
	k.dropRequest()
	k.up.q.release()
	k.up.account(b)
}

// finish is the end of the answer with headers.
func (k *call) finish(b *batch, l *headers.List, a answer) {
	k.code = a.code
	if !a.coded {
		k.broken, k.code = true, codeUnknown
	}
	c, id, whole := k.backend, k.backendID, k.up.endSent
	if !k.started && a.code == codeUnavailable && k.marked && k.again(b, false) {
		if !whole {
			c.reset(b, id, http2.ErrCodeNo) // it need not read the rest
		}
		return
	}
	if !k.started {
		k.start(b)
	}
	k.down.ended = true
	k.keepTrailers(l)
	if k.counts && a.coded && a.code == codeOK {
		k.holding, k.counting = true, true
		k.relay.opts.Counter.Count(k)
	}
	k.down.pump(b)
	k.settle(b)
}

// notCounted begins the message of a call that was refused, or not acknowledged, because it could not be counted.
const notCounted = "not counted, so not done: "

// sendHeaders appends a header block. It does nothing where the connection is over.
func (c *conn) sendHeaders(b *batch, id uint32, list []byte, end bool) {
	if !c.begin(b) {
		return
	}
	c.appendHeaders(id, end, list)
	c.useful = true
	c.end()
}

// appendHeaders appends a header block of some lists to the output. c.mu is held.
func (c *conn) appendHeaders(id uint32, end bool, lists ...[]byte) {
	out := c.out.b
	at := len(out)
	out = append(out, make([]byte, frameHeader)...)
	out = c.enc.Start(out)
	for _, list := range lists {
		l := headers.Of(list)
		for f := range l.All {
			out = c.enc.Field(out, f)
		}
	}
	c.out.b = sealHeaders(out, at, id, end, maxFrame)
}

package relay

import (
	"encoding/binary"
	"errors"
	"strconv"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/headers"
)

// Bounds of a header block as it is sent, before it is known what it decodes to.
const (
	maxBlock         = 64 << 10
	maxContinuations = 32
	// maxHeaderList of a client, and of a backend, as HTTP/2 counts it.
	maxHeaderList        = 16 << 10
	maxBackendHeaderList = 64 << 10
)

// block is a header block whose frames are arriving.
type block struct {
	b     []byte
	id    uint32 // 0: none is open
	end   bool
	parts int
}

func (c *conn) input() *buffer {
	if c.in == nil {
		c.in = readBuffers.Get().(*buffer)
	}
	return c.in
}

func (c *conn) releaseInput() {
	if c.in != nil && len(c.in.b) == 0 {
		readBuffers.Put(c.in)
		c.in = nil
	}
}

// readPlain is the reader of a connection that only has reads which block.
func (c *conn) readPlain() error {
	for {
		in := c.input()
		n, err := c.nc.Read(in.b[len(in.b):cap(in.b)])
		if n > 0 {
			if err := c.arrived(n); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// arrived handles n bytes that have been read behind those in the buffer, and does what follows from them.
func (c *conn) arrived(n int) error {
	c.heard.Store(int64(c.relay.now()))
	in := c.in
	in.b = in.b[:len(in.b)+n]
	rest, err := c.handle(in.b)
	in.b = in.b[:copy(in.b, rest)]
	if err != nil {
		err = c.fault(err)
	}
	c.batch.flush()
	if c.pool == nil {
		c.pause()
	}
	if err == nil {
		err = c.over()
	}
	return err
}

// over returns why the connection is over, nil where it is not.
func (c *conn) over() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

// fault tells the peer what it did wrong. It returns nil where the reader is to go on for a moment, without handling
// what it reads.
func (c *conn) fault(err error) error {
	fault, ok := err.(connError) //nolint:errorlint // it comes from the line above, unwrapped
	if !ok {
		return err
	}
	c.relay.trouble("connection ended for a fault of its peer", c, fault)
	c.goAway(&c.batch, fault.code, fault.reason)
	c.loseAll(fault)
	return nil
}

// handle handles the whole frames in b and returns what is left.
func (c *conn) handle(b []byte) (rest []byte, err error) {
	if c.overWith() {
		return nil, nil
	}
	if c.pool == nil && !c.guard.preface {
		if b, err = c.preface(b); err != nil || !c.guard.preface {
			return b, err
		}
	}
	for {
		f, rest, ok, err := nextFrame(b)
		if err != nil {
			return nil, err
		}
		if !ok {
			return b, nil
		}
		if err := c.frame(f); err != nil {
			return nil, err
		}
		b = rest
	}
}

// overWith tells that the connection is only read to its end.
func (c *conn) overWith() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending || c.dead
}

func (c *conn) preface(b []byte) ([]byte, error) {
	n := min(len(b), len(http2.ClientPreface))
	if c.guard.old || string(b[:n]) != http2.ClientPreface[:n] {
		return nil, c.refuseHTTP1(b)
	}
	if n < len(http2.ClientPreface) {
		return b, nil
	}
	c.guard.preface = true
	c.hello()
	return b[n:], nil
}

// oldHTTP is the answer to a client that speaks HTTP/1.
var oldHTTP = func() string {
	const text = "this port speaks gRPC, over HTTP/2 only\n"
	return "HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: " +
		strconv.Itoa(len(text)) + "\r\n\r\n" + text
}()

// refuseHTTP1 answers what is no HTTP/2 in its own words, if it has the look of HTTP/1.
func (c *conn) refuseHTTP1(b []byte) error {
	if b[0] < 'A' || b[0] > 'Z' || string(b[:min(len(b), 3)]) == "PRI" {
		return connError{http2.ErrCodeProtocol, "no preface of HTTP/2, or not agreed on by TLS"}
	}
	if c.begin(&c.batch) {
		c.out.b = append(c.out.b, oldHTTP...)
		c.ending = true
		c.end()
	}
	return nil
}

// frame handles one frame.
func (c *conn) frame(f frame) error {
	if !c.greeted {
		if f.kind != http2.FrameSettings || f.flags&http2.FlagSettingsAck != 0 {
			return connError{http2.ErrCodeProtocol, "the first frame is not SETTINGS"}
		}
		c.greeted = true
	}
	if c.block.id != 0 && (f.kind != http2.FrameContinuation || f.id != c.block.id) {
		return connError{http2.ErrCodeProtocol, "a header block is interrupted"}
	}
	if c.pool == nil {
		if err := c.guard.frame(&f, c.relay); err != nil {
			return err
		}
	}
	switch f.kind {
	case http2.FrameData:
		return c.onData(f)
	case http2.FrameHeaders:
		return c.onHeaders(f)
	case http2.FrameContinuation:
		return c.onContinuation(f)
	case http2.FrameWindowUpdate:
		return c.onWindowUpdate(f)
	case http2.FrameRSTStream:
		return c.onRST(f)
	case http2.FrameSettings:
		return c.onSettings(f)
	case http2.FramePing:
		return c.onPing(f)
	case http2.FrameGoAway:
		return c.onGoAway(f)
	case http2.FramePriority:
		return c.onPriority(f)
	case http2.FramePushPromise:
		return connError{http2.ErrCodeProtocol, "PUSH_PROMISE"}
	default:
		return nil
	}
}

// opened tells whether the stream of that id was ever opened.
func (c *conn) opened(id uint32) bool {
	if c.pool == nil {
		return id&1 == 1 && id <= c.newest
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return id&1 == 1 && id < c.lastID
}

// ignores tells that what comes on the stream of that id is to be ignored: the client opened it before it had read the
// last GOAWAY (RFC 9113, section 6.8).
func (c *conn) ignores(id uint32) bool {
	return c.pool == nil && id&1 == 1 && id > c.lastID && id <= c.newest
}

func (c *conn) onData(f frame) error {
	if f.id == 0 {
		return connError{http2.ErrCodeProtocol, "DATA on stream 0"}
	}
	n := len(f.payload)
	end := f.flags&http2.FlagDataEndStream != 0
	if err := unpad(&f); err != nil {
		return err
	}
	c.mu.Lock()
	c.recvLeft -= n
	c.recvUsed += n
	k := c.calls.get(f.id)
	bad := c.recvLeft < 0
	due := c.recvUsed >= c.window()/2
	c.mu.Unlock()
	if bad {
		return connError{http2.ErrCodeFlowControl, "DATA beyond the connection's window"}
	}
	if due {
		c.credit(&c.batch)
	}
	if k != nil {
		k.mu.Lock()
		defer k.unlock(&c.batch)
		if c.pool == nil && k.client == c && k.clientID == f.id {
			k.upData(&c.batch, f.payload, n, end)
			return nil
		}
		if c.pool != nil && k.backend == c && k.backendID == f.id {
			k.downData(&c.batch, f.payload, n, end)
			return nil
		}
	}
	if !c.opened(f.id) {
		return connError{http2.ErrCodeProtocol, "DATA on an idle stream"}
	}
	if c.pool != nil || c.ignores(f.id) {
		return nil // a backend may not have read yet that the stream was reset
	}
	c.reset(&c.batch, f.id, http2.ErrCodeStreamClosed)
	return nil
}

func (c *conn) window() int {
	if c.pool == nil {
		return clientWindow
	}
	return backendWindow
}

// queued is what waits for the calls of this client, in bytes.
func (c *conn) queued() int {
	if c == nil {
		return 0
	}
	return int(c.guard.queued.Load())
}

// hoards tells that a client's calls hold so much that answers to them are broken off: something, where all clients hold
// too much together, and before it comes to that more than a share.
func (c *conn) hoards() bool {
	q, most := c.queued(), c.relay.opts.MaxBuffered
	return q > 0 && c.relay.full() || q > most/shares && c.relay.queued.Load() > int64(most)/2
}

// stopped tells that a client's calls hold more than most, or something where all of them hold too much together.
func (c *conn) stopped(most int) bool {
	q := c.queued()
	return q > most || q > 0 && c.relay.full()
}

// credit gives the connection's window back, unless it is a client whose calls hold too much. It is for the reader,
// which holds no lock.
func (c *conn) credit(b *batch) {
	if c.pool == nil && c.stopped(budgetUp) {
		c.guard.withheld.Store(true)
		// What is only kept would not move on by itself, and so nobody would give the window back.
		c.giveUpKept(b)
		// Nor would they where what waited has gone meanwhile.
		if c.stopped(budgetUp/2) || !c.guard.withheld.CompareAndSwap(true, false) {
			return
		}
	}
	c.grant(b)
}

// giveUpKept frees what the client's calls keep for second attempts.
func (c *conn) giveUpKept(b *batch) {
	c.mu.Lock()
	calls := c.calls.all()
	c.mu.Unlock()
	for _, s := range calls {
		k := s.call
		k.mu.Lock()
		if k.client == c && k.clientID == s.id && k.up.q.kept > 0 {
			k.up.q.release()
			k.up.account(b)
		}
		k.unlock(b)
	}
}

// grant gives the connection's window back.
func (c *conn) grant(b *batch) {
	if !c.begin(b) {
		return
	}
	if c.recvUsed > 0 {
		c.out.b = appendWindowUpdate(c.out.b, 0, c.recvUsed)
		c.recvLeft += c.recvUsed
		c.recvUsed = 0
	}
	c.end()
}

// reset sends RST_STREAM for a stream that is not, or no more, in the table.
func (c *conn) reset(b *batch, id uint32, code http2.ErrCode) {
	if c.begin(b) {
		c.out.b = appendRST(c.out.b, id, code)
		c.end()
	}
}

func (c *conn) onHeaders(f frame) error {
	if f.id == 0 {
		return connError{http2.ErrCodeProtocol, "HEADERS on stream 0"}
	}
	if err := unpad(&f); err != nil {
		return err
	}
	if f.flags&http2.FlagHeadersPriority != 0 {
		if len(f.payload) < 5 {
			return connError{http2.ErrCodeFrameSize, "HEADERS without its priority"}
		}
		if binary.BigEndian.Uint32(f.payload)&maxID == f.id {
			return connError{http2.ErrCodeProtocol, "a stream that depends on itself"}
		}
		f.payload = f.payload[5:]
	}
	end := f.flags&http2.FlagHeadersEndStream != 0
	if f.flags&http2.FlagHeadersEndHeaders != 0 {
		return c.headers(f.id, f.payload, end)
	}
	c.block.id, c.block.end, c.block.parts = f.id, end, 0
	c.block.b = append(c.block.b[:0], f.payload...)
	return nil
}

func (c *conn) onContinuation(f frame) error {
	if c.block.id == 0 {
		return connError{http2.ErrCodeProtocol, "CONTINUATION without HEADERS"}
	}
	c.block.parts++
	if len(c.block.b)+len(f.payload) > maxBlock || c.block.parts > maxContinuations {
		return connError{http2.ErrCodeEnhanceYourCalm, "header block too large"}
	}
	c.block.b = append(c.block.b, f.payload...)
	if f.flags&http2.FlagContinuationEndHeaders == 0 {
		return nil
	}
	id := c.block.id
	c.block.id = 0
	err := c.headers(id, c.block.b, c.block.end)
	c.block.b = nil
	return err
}

// headers handles a whole header block.
func (c *conn) headers(id uint32, fragment []byte, end bool) error {
	limit := maxHeaderList
	if c.pool != nil {
		limit = maxBackendHeaderList
	}
	c.list.Reset()
	if err := c.dec.Decode(fragment, &c.list, limit); err != nil {
		return connError{http2.ErrCodeCompression, err.Error()}
	}
	if c.pool == nil {
		return c.request(id, &c.list, end)
	}
	return c.response(id, &c.list, end)
}

// response handles headers from a backend.
func (c *conn) response(id uint32, l *headers.List, end bool) error {
	c.mu.Lock()
	k := c.calls.get(id)
	c.mu.Unlock()
	if k != nil {
		k.mu.Lock()
		defer k.unlock(&c.batch)
		if k.backend == c && k.backendID == id {
			k.downHeaders(&c.batch, l, end)
			return nil
		}
	}
	if !c.opened(id) {
		return connError{http2.ErrCodeProtocol, "HEADERS on an idle stream"}
	}
	return nil
}

func (c *conn) onRST(f frame) error {
	if len(f.payload) != 4 {
		return connError{http2.ErrCodeFrameSize, "RST_STREAM of a wrong size"}
	}
	if f.id == 0 || !c.opened(f.id) {
		return connError{http2.ErrCodeProtocol, "RST_STREAM on an idle stream"}
	}
	code := http2.ErrCode(binary.BigEndian.Uint32(f.payload))
	c.mu.Lock()
	k := c.calls.get(f.id)
	c.mu.Unlock()
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.unlock(&c.batch)
	switch {
	case c.pool == nil && k.client == c && k.clientID == f.id:
		k.clientReset(&c.batch, code)
		return c.guard.reset(c.relay.now())
	case c.pool != nil && k.backend == c && k.backendID == f.id:
		k.backendReset(&c.batch, code)
	}
	return nil
}

func (c *conn) onWindowUpdate(f frame) error {
	if len(f.payload) != 4 {
		return connError{http2.ErrCodeFrameSize, "WINDOW_UPDATE of a wrong size"}
	}
	n := int(binary.BigEndian.Uint32(f.payload) & maxID)
	if f.id == 0 {
		if n == 0 {
			return connError{http2.ErrCodeProtocol, "WINDOW_UPDATE of nothing"}
		}
		c.mu.Lock()
		c.send += n
		bad := c.send > maxWindow
		c.mu.Unlock()
		if bad {
			return connError{http2.ErrCodeFlowControl, "the connection's window is too large"}
		}
		c.resume(&c.batch)
		return nil
	}
	c.mu.Lock()
	k := c.calls.get(f.id)
	c.mu.Unlock()
	if k == nil {
		if !c.opened(f.id) {
			return connError{http2.ErrCodeProtocol, "WINDOW_UPDATE on an idle stream"}
		}
		if n == 0 && !c.ignores(f.id) {
			c.reset(&c.batch, f.id, http2.ErrCodeProtocol)
		}
		return nil
	}
	k.mu.Lock()
	defer k.unlock(&c.batch)
	flow := k.flowTo(c, f.id)
	switch {
	case flow == nil:
	case n == 0:
		k.violated(&c.batch, c, http2.ErrCodeProtocol)
	case !flow.widen(&c.batch, n):
		k.violated(&c.batch, c, http2.ErrCodeFlowControl)
	default:
		k.settle(&c.batch)
	}
	return nil
}

func (c *conn) onPriority(f frame) error {
	switch {
	case f.id == 0:
		return connError{http2.ErrCodeProtocol, "PRIORITY on stream 0"}
	case len(f.payload) != 5:
		return connError{http2.ErrCodeFrameSize, "PRIORITY of a wrong size"}
	case binary.BigEndian.Uint32(f.payload)&maxID == f.id:
		return connError{http2.ErrCodeProtocol, "a stream that depends on itself"}
	}
	return nil
}

// errSlow ends the connection of a peer that asks for more than it reads.
var errSlow = errors.New("the peer does not read what it asked for")

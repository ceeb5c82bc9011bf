package relay

import (
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/headers"
)

const (
	tableSize = 4096 // of HPACK, both ways
	// roomFlowing and roomBlocked bound the DATA in a connection's output buffer: while its socket takes what is
	// written, and while it does not. What does not fit stays in the calls' queues, and is not given credit for.
	roomFlowing = 192 << 10
	roomBlocked = 64 << 10
	// pauseOutput of answers to what a client sent stops the reading from it, and of what a backend is to be sent, the
	// opening of streams; killOutput ends a client's connection, for there is a peer that asks and does not read.
	pauseOutput = 256 << 10
	killOutput  = 2 << 20
	// killBackendOutput ends one to a backend. All clients together do not bring it about: headers stop at pauseOutput and
	// data at its windows, and an open stream gets one end of its data and one reset besides. So the backend does.
	killBackendOutput = killOutput + unboundedStreams*(frameHeader+frameHeader+4)
	// clientWindow and backendWindow are the windows of whole connections. They are given back on arrival, so that one
	// stalled call never stalls another; what they bound is what can be under way before a client that is over its
	// budget is stopped.
	clientWindow  = 4 << 20
	backendWindow = 16 << 20
)

// conn is a connection to a client or to a backend. Its reader goroutine handles what arrives and appends the results
// to the output of other connections; its writer goroutine writes what a socket did not take at once.
//
// Locks are taken in this order: call.mu, pool.mu, conn.mu; and no two of a kind.
type conn struct {
	relay *Relay
	pool  *pool // whose connection to a backend it is; nil for one to a client
	nc    net.Conn
	raw   syscall.RawConn // for reads and writes that do not block; nil where there are none
	wake  chan struct{}   // tells the writer that rest is there; closed at the end
	room  chan struct{}   // tells the paused reader that output has been written

	// For the reader only.
	in      *buffer // holds what has been read and not handled, nil where nothing is
	readErr error
	batch   batch
	dec     *headers.Decoder
	list    headers.List // of the block at hand
	passed  headers.List // what is passed on of it
	block   block
	greeted bool   // the first SETTINGS have arrived
	newest  uint32 // of a client: the newest stream that it has opened, served or not
	guard   guard

	heard atomic.Int64 // when bytes arrived last, on the relay's clock
	late  atomic.Bool  // stands among those whose output is to be written soon: see acks
	began time.Duration

	mu       sync.Mutex
	calls    table
	enc      *headers.Encoder
	out      *buffer // what is to be written next
	rest     *buffer // what the writer writes
	restAt   int
	seen     uint32        // of a backend: streams from this id on cannot have been seen, for nothing of them was written
	seenBut  uint32        // what seen was before the output that is being written
	attempt  attempt       // of who writes
	up       bool          // nc may be written to
	said     bool          // to a client: the first SETTINGS
	dirty    bool          // stands in a batch, which will flush it
	writing  bool          // somebody writes
	paused   bool          // the reader waits for room
	ending   bool          // to be closed when all is written: nothing is appended any more
	endedAt  time.Duration // when watch saw that first
	halved   bool          // and all is: only what the peer still sends is read
	goodbye  halfCloser    // for the writer to close its half
	dead     bool          // over
	reason   error
	blocked  flows // those with data and a window, waiting for the connection's window or room
	send     int   // the connection's window
	initial  int   // the window of a new stream
	recvUsed int   // arrived since credit was given
	recvLeft int
	lastID   uint32 // of a client: the newest stream that is served; of a backend: the next one
	most     uint32 // streams at a time that the backend takes
	drain    drain
	settled  bool // the peer's SETTINGS have arrived
	pinged   time.Duration
	idle     time.Duration // since when there is no stream
	closed   ring          // a client's streams that ended last
	crowded  bool          // to a backend: a stream was not opened, for too much is to be written
	useful   bool          // something that answers a call was sent since the last PING: see guard
}

// drain is how far a connection is on its way out.
type drain uint8

const (
	serving  drain = iota
	warned         // GOAWAY with the greatest id and a PING are sent
	draining       // no new streams; closed when the last has ended
)

// buffer is a pooled buffer of bytes.
type buffer struct{ b []byte }

// readBuffer is what one read may take, and holds a frame of the largest size.
const readBuffer = 64 << 10

var (
	readBuffers  = sync.Pool{New: func() any { return &buffer{make([]byte, 0, readBuffer)} }}
	writeBuffers = sync.Pool{New: func() any { return &buffer{make([]byte, 0, 4<<10)} }}
)

func putWriteBuffer(b *buffer) {
	if cap(b.b) > 512<<10 {
		return
	}
	b.b = b.b[:0]
	writeBuffers.Put(b)
}

func newConn(r *Relay, p *pool) *conn {
	c := &conn{
		relay: r, pool: p,
		wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
		dec: headers.NewDecoder(tableSize), enc: headers.NewEncoder(tableSize),
		send: firstWindow, initial: firstWindow, recvLeft: clientWindow, most: unsettledStreams,
		began: r.now(),
	}
	c.idle = c.began
	if p != nil {
		c.recvLeft, c.lastID, c.seen = backendWindow, 1, 1
	}
	c.heard.Store(int64(c.began))
	return c
}

// use makes nc the connection's own. hello is what is said first, before all that calls have appended meanwhile.
func (c *conn) use(nc net.Conn, hello []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nc = nc
	if sc, ok := nc.(syscall.Conn); ok && inline {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
	c.up = true
	if c.dead {
		c.interrupt()
		return
	}
	if len(hello) > 0 {
		c.touch(&c.batch)
		c.out.b = slices.Insert(c.out.b, 0, hello...)
	}
}

// touch puts the connection into a batch, if it stands in none. c.mu is held.
func (c *conn) touch(b *batch) {
	if c.out == nil {
		c.out = writeBuffers.Get().(*buffer)
	}
	if !c.dirty {
		c.dirty = true
		b.conns = append(b.conns, c)
	}
}

// begin locks c for output, and tells whether there is any use in it; where there is not, it is not locked.
func (c *conn) begin(b *batch) bool {
	c.mu.Lock()
	if c.dead || c.ending {
		c.mu.Unlock()
		return false
	}
	c.touch(b)
	return true
}

// end unlocks c after output.
func (c *conn) end() {
	most := killOutput
	if c.pool != nil {
		most = killBackendOutput
	}
	if len(c.out.b) > most {
		c.killLocked(errSlow)
	}
	c.mu.Unlock()
}

// kill ends the connection at once.
func (c *conn) kill(err error) {
	c.mu.Lock()
	c.killLocked(err)
	c.mu.Unlock()
}

func (c *conn) killLocked(err error) {
	if c.dead {
		return
	}
	c.dead, c.reason = true, err
	c.interrupt()
	c.unpause()
}

// interrupt ends all reading and writing. The reader closes the connection: a Close waits for those who use it, and
// here they may wait for c.mu.
func (c *conn) interrupt() {
	if c.nc != nil {
		_ = c.nc.SetDeadline(time.Unix(1, 0))
	}
}

func (c *conn) unpause() {
	if c.paused {
		c.paused = false
		c.room <- struct{}{}
	}
}

// space is how much DATA may be appended to the output. c.mu is held.
func (c *conn) space() int {
	if !c.up {
		// Data stays with its call, and gets no credit, so that all of the request is there for another endpoint.
		return 0
	}
	most := roomFlowing
	if c.rest != nil {
		most = roomBlocked
	}
	if c.out == nil {
		return most
	}
	return most - len(c.out.b)
}

// batch is what a goroutine has to do after the frames at hand: connections to flush, and pools whose waiting calls
// may go on.
type batch struct {
	conns []*conn
	pools []*pool
}

// flush does it. No lock is held.
func (b *batch) flush() { b.do((*conn).flush) }

// hand lets the writer goroutines do the writing, so that more can be collected until they get to it.
func (b *batch) hand() { b.do((*conn).hand) }

func (b *batch) do(write func(*conn)) {
	for len(b.conns) > 0 || len(b.pools) > 0 {
		for i := 0; i < len(b.pools); i++ {
			b.pools[i].resume(b)
		}
		b.pools = b.pools[:0]
		for i := 0; i < len(b.conns); i++ {
			c := b.conns[i]
			write(c)
			c.resume(b)
		}
		b.conns = b.conns[:0]
	}
}

// flush writes what the socket takes without blocking, and leaves the rest to the writer goroutine.
func (c *conn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirty = false
	for c.raw != nil && !c.dead && !c.writing && c.out != nil && len(c.out.b) > 0 {
		buf := c.out
		c.out, c.writing = nil, true
		c.mayBeSeen()
		c.mu.Unlock()
		n, err := c.tryWrite(buf.b)
		c.mu.Lock()
		c.writing = false
		switch {
		case err != nil:
			c.unwritten(n)
			c.killLocked(err)
		case c.dead:
		case n < len(buf.b):
			c.rest, c.restAt, c.writing = buf, n, true
			c.signal()
		default:
			putWriteBuffer(buf)
		}
	}
	c.handLocked()
	c.closeWritten()
}

// mayBeSeen notes that all streams which have been opened may be seen: their headers are about to be written. c.mu is
// held.
func (c *conn) mayBeSeen() {
	if c.pool != nil {
		c.seen, c.seenBut = c.lastID, c.seen
	}
}

// unwritten notes that the write which failed had written n bytes. c.mu is held.
func (c *conn) unwritten(n int) {
	if n == 0 {
		c.seen = c.seenBut
	}
}

func (c *conn) hand() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirty = false
	c.handLocked()
	c.closeWritten()
}

// handLocked gives the output to the writer goroutine.
func (c *conn) handLocked() {
	if !c.up || c.dead || c.writing || c.out == nil || len(c.out.b) == 0 {
		return
	}
	c.rest, c.restAt, c.writing = c.out, 0, true
	c.out = nil
	c.mayBeSeen()
	c.signal()
}

func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// closeWritten closes a connection that is to be closed when all is written. The peer may still be sending, and a
// socket closed with unread bytes takes back what was sent; so only one half is closed, and the reader goes on for a
// moment.
func (c *conn) closeWritten() {
	if !c.ending || c.halved || c.dead || c.writing || c.nc == nil || (c.out != nil && len(c.out.b) > 0) {
		return
	}
	half, ok := c.nc.(halfCloser)
	if !ok {
		c.killLocked(io.EOF)
		return
	}
	c.halved = true
	_ = c.nc.SetReadDeadline(time.Now().Add(linger))
	if c.raw != nil {
		_ = half.CloseWrite()
		return
	}
	c.goodbye = half // TLS writes one, and may have to wait for that
	c.signal()
}

type halfCloser interface{ CloseWrite() error }

// linger is how long what a peer still sends is read after the last was said to it.
const linger = time.Second

// write is the writer goroutine.
func (c *conn) write() {
	var b batch
	for range c.wake {
		c.mu.Lock()
		for c.rest != nil {
			buf, at := c.rest, c.restAt
			c.mu.Unlock()
			n, err := c.nc.Write(buf.b[at:])
			putWriteBuffer(buf)
			c.mu.Lock()
			c.rest, c.writing = nil, false
			if err != nil {
				c.unwritten(at + n)
				c.killLocked(err)
			}
			c.handLocked()
			c.unpause()
			if c.crowded {
				c.mu.Unlock()
				c.resume(&b)
				b.flush()
				c.mu.Lock()
			}
		}
		c.closeWritten()
		goodbye := c.goodbye
		c.goodbye = nil
		c.mu.Unlock()
		if goodbye != nil {
			_ = goodbye.CloseWrite()
		}
		c.resume(&b)
		b.flush()
	}
}

// pause waits, for the reader, until its own peer has read enough of what it asked for.
func (c *conn) pause() {
	c.mu.Lock()
	for !c.dead && c.out != nil && len(c.out.b) > pauseOutput {
		c.paused = true
		c.mu.Unlock()
		<-c.room
		c.mu.Lock()
	}
	c.mu.Unlock()
}

// resume lets blocked flows go on for which there is a window and room, and calls for whose headers there was none.
func (c *conn) resume(b *batch) {
	for {
		c.mu.Lock()
		if c.crowded && (c.dead || c.out == nil || len(c.out.b) <= pauseOutput) {
			c.crowded = false
			b.pools = append(b.pools, c.pool)
		}
		if c.blocked.first == nil || c.dead || c.send <= 0 || c.space() <= 0 {
			c.mu.Unlock()
			return
		}
		f := c.blocked.pop()
		k := f.call // with the lock, which a call takes on its way out
		c.mu.Unlock()
		k.mu.Lock()
		// The call may be another one by now; then this does nothing, or what is due anyway.
		f.pump(b)
		k.settle(b)
		k.unlock(b)
	}
}

// goAway says that the connection is over, and why, and closes it when that is written.
func (c *conn) goAway(b *batch, code http2.ErrCode, reason string) {
	if !c.begin(b) {
		return
	}
	last := c.lastID
	if c.pool != nil {
		// What it has not seen yet is for another one: see loseAll.
		last, c.out.b = 0, c.out.b[:0]
	}
	c.out.b = appendGoAway(c.out.b, last, code, reason)
	c.ending = true
	c.mu.Unlock()
}

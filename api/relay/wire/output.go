// Package wire is the side of a connection that faces the network: a [Socket], the [Input] that splits what it reads
// into frames and header lists, and the [Output] to which any goroutine appends frames. It knows frames and header
// lists, but no streams, calls or windows.
//
// Reads and writes do not block if the system allows that. Output that the socket does not accept is left to the
// connection's writer goroutine, [Output.Serve]. Buffers are pooled, and an idle connection holds none.
package wire

import (
	"io"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/headers"
)

const (
	// roomFlowing and RoomBlocked bound the DATA in a connection's pending output while its socket accepts all
	// writes, and while it does not. Data that does not fit stays in the calls' queues, and its sender gets no
	// credit for it.
	roomFlowing = 192 << 10
	RoomBlocked = 64 << 10
	// While more than pauseOutput is waiting to be written, the relay reads nothing from a client and opens no
	// streams on a connection to a backend.
	pauseOutput = 256 << 10
)

// Output is the output of a connection. Any goroutine may append frames to Pending, but only one at a time writes:
// either a goroutine that has appended and calls Flush, which writes as much as the socket accepts without blocking,
// or the connection's writer goroutine, which writes rest. So frames leave in the order in which they were appended.
//
// Once ending is set, nothing is appended any more, and the sending half is closed when everything is written. Once
// dead is set, nothing is written any more.
//
// The lock guards all fields. The callers of all methods except Serve, Stop and Pause hold it.
type Output struct {
	mu     *sync.Mutex // of the connection
	socket *Socket
	most   int           // the pending bytes beyond which the peer is too slow
	wake   chan struct{} // tells the writer goroutine that rest or halfClose is set; closed at the end
	room   chan struct{} // tells the paused reader that output has been written

	Pending Pending // to be written next
	Marks   Marks   // of the pending output, and of what was written
	rest    *buffer // output that the writer goroutine is writing
	restAt  int
	up      bool // the socket may be written to
	writing bool // a goroutine is writing
	dirty   bool // a caller of Touch will call Flush or Hand
	refused bool // something was not appended because too much output is waiting
	paused  bool // the reader waits for room

	ending    bool          // to be closed when all output is written: nothing more is appended
	endedAt   time.Duration // when the end was first noticed by Late
	halved    bool          // all output is written: further input is read and ignored
	halfClose halfCloser    // the socket whose sending half the writer goroutine must close
	dead      bool          // the connection is over
	reason    error
}

// NewOutput returns an output that the lock mu guards. If more than most bytes are pending, it overflows.
func NewOutput(mu *sync.Mutex, s *Socket, most int) Output {
	return Output{
		mu: mu, socket: s, most: most, Pending: Pending{enc: headers.NewEncoder(frames.TableSize)},
		wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
}

// Over reports whether nothing may be appended any more.
func (o *Output) Over() bool { return o.dead || o.ending }

// Touch must be called before output is appended. It reports whether the caller must see to it that Flush or Hand is
// called: false if an earlier caller does so already.
func (o *Output) Touch() (first bool) {
	first, o.dirty = !o.dirty, true
	return first
}

// Open allows writing to the socket, which has been connected.
func (o *Output) Open() { o.up = true }

// End makes the connection close when all output has been written.
func (o *Output) End() { o.ending = true }

// Dead reports whether the connection is over.
func (o *Output) Dead() bool { return o.dead }

// Ending reports whether the connection closes when all output has been written.
func (o *Output) Ending() bool { return o.ending }

// Err returns the error that ended the connection, or nil if the connection is not over.
func (o *Output) Err() error { return o.reason }

// Blocked reports whether the socket has not accepted all output that was written.
func (o *Output) Blocked() bool { return o.rest != nil }

// Overflows reports whether so much output is waiting that the peer is too slow.
func (o *Output) Overflows() bool { return o.Pending.Len() > o.most }

// Refuse records that something was not appended because too much output is waiting: see Relieved.
func (o *Output) Refuse() { o.refused = true }

// Space returns how much DATA may be appended.
func (o *Output) Space() int {
	if !o.up {
		// Data stays with its call and gets no credit, so that the whole request is still here for another
		// endpoint.
		return 0
	}
	most := roomFlowing
	if o.rest != nil {
		most = RoomBlocked
	}
	return most - o.Pending.Len()
}

// Full reports whether so much output is waiting that headers must not be appended.
func (o *Output) Full() bool { return o.Pending.Len() > pauseOutput }

// Relieved reports, once, that output which was refused is possible again, or never will be.
func (o *Output) Relieved() bool {
	if !o.refused || !o.dead && o.Full() {
		return false
	}
	o.refused = false
	return true
}

// Unaccepted returns the bytes that wait because the socket has not accepted them.
func (o *Output) Unaccepted() int {
	if o.rest == nil || o.dead {
		return 0
	}
	return len(o.rest.b) + o.Pending.Len()
}

// Flush writes the output that the socket accepts without blocking, and leaves the rest to the writer goroutine. It
// releases the lock while it writes.
func (o *Output) Flush() {
	o.dirty = false
	for o.socket.raw != nil && !o.dead && !o.writing && o.Pending.Len() > 0 {
		buf := o.Pending.take()
		o.writing = true
		o.Marks.begin()
		o.mu.Unlock()
		n, err := o.socket.tryWrite(buf.b)
		o.mu.Lock()
		o.writing = false
		switch {
		case err != nil:
			o.Marks.failed(n)
			o.Kill(err)
		case o.dead:
		case n < len(buf.b):
			o.rest, o.restAt, o.writing = buf, n, true
			o.signal()
		default:
			putWriteBuffer(buf)
		}
	}
	o.leave()
	o.closeWritten()
}

// Hand is like Flush, but leaves the writing to the writer goroutine, so that more output can collect until it runs.
func (o *Output) Hand() {
	o.dirty = false
	o.leave()
	o.closeWritten()
}

// leave leaves the pending output to the writer goroutine, unless a goroutine is writing already.
func (o *Output) leave() {
	if !o.up || o.dead || o.writing || o.Pending.Len() == 0 {
		return
	}
	o.rest, o.restAt, o.writing = o.Pending.take(), 0, true
	o.Marks.begin()
	o.signal()
}

func (o *Output) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Serve is the writer goroutine, which ends when Stop is called. It calls changed, with the lock held, after output has
// been written; unblocked means that the socket had been blocked and has accepted everything since. It calls resume,
// without the lock, when more output may be possible.
func (o *Output) Serve(changed func(unblocked bool), resume func()) {
	for range o.wake {
		o.mu.Lock()
		for o.rest != nil {
			changed(o.writeRest())
			if o.refused {
				o.mu.Unlock()
				resume()
				o.mu.Lock()
			}
		}
		o.closeWritten()
		changed(false)
		half := o.takeHalfClose()
		o.mu.Unlock()
		if half != nil {
			_ = half.CloseWrite()
		}
		resume()
	}
}

// Stop ends the writer goroutine. It is called once, when the connection is over.
func (o *Output) Stop() { close(o.wake) }

// writeRest writes rest and leaves the pending output to the next call. Only the writer goroutine calls it, while
// rest is not nil. It releases the lock while it writes. It reports whether the socket had been blocked and has
// accepted everything since.
func (o *Output) writeRest() (unblocked bool) {
	buf, at := o.rest, o.restAt
	o.mu.Unlock()
	n, err := o.socket.Conn.Write(buf.b[at:])
	o.mu.Lock()
	o.rest, o.writing = nil, false
	putWriteBuffer(buf) // under the lock: until then other goroutines read its length
	if err != nil {
		o.Marks.failed(at + n)
		o.Kill(err)
	}
	o.leave()
	o.unpause()
	return err == nil && at > 0
}

// closeWritten closes the sending half of a connection that is ending, if all output is written. The peer may still
// be sending, and closing a socket with unread bytes discards data that was sent on it. So the reader goes on for a
// moment.
func (o *Output) closeWritten() {
	if !o.ending || o.halved || o.dead || o.writing || o.socket.Conn == nil || o.Pending.Len() > 0 {
		return
	}
	half, ok := o.socket.Conn.(halfCloser)
	if !ok {
		o.Kill(io.EOF)
		return
	}
	o.halved = true
	_ = o.socket.Conn.SetReadDeadline(time.Now().Add(linger))
	if o.socket.raw != nil {
		_ = half.CloseWrite()
		return
	}
	o.halfClose = half // TLS writes an alert, and may have to wait for that
	o.signal()
}

type halfCloser interface{ CloseWrite() error }

// linger is how long the relay reads from a peer after it has written its last output to it.
const linger = time.Second

// takeHalfClose returns the socket whose sending half must be closed, once; nil if there is none.
func (o *Output) takeHalfClose() halfCloser {
	half := o.halfClose
	o.halfClose = nil
	return half
}

// Late reports whether the output has been ending for longer than patience: a peer that does not read would delay
// the end of the connection forever.
func (o *Output) Late(now, patience time.Duration) bool {
	if o.endedAt == 0 {
		o.endedAt = now
		return false
	}
	return now-o.endedAt > patience
}

// Kill ends the connection at once, unless it is over already.
func (o *Output) Kill(err error) {
	if o.dead {
		return
	}
	o.dead, o.reason = true, err
	o.socket.Interrupt()
	o.unpause()
}

// Pause blocks the reader until the peer has read enough of its output. The caller does not hold the lock.
func (o *Output) Pause() {
	o.mu.Lock()
	for !o.dead && o.Full() {
		o.paused = true
		o.mu.Unlock()
		<-o.room
		o.mu.Lock()
	}
	o.mu.Unlock()
}

func (o *Output) unpause() {
	if o.paused {
		o.paused = false
		o.room <- struct{}{}
	}
}

package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/frames"
)

// pipedOutput returns an output whose socket is one end of a pipe, and the other end. A pipe accepts nothing until
// the other end reads.
func pipedOutput(t *testing.T) (*Output, net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	s := &Socket{}
	s.Use(near)
	o := NewOutput(&sync.Mutex{}, s, 1<<20)
	o.up = true
	return &o, far
}

// add appends p to the output, whose lock is held.
func (o *Output) add(p ...byte) {
	b := o.Pending.bytes()
	*b = append(*b, p...)
}

// While the writer goroutine writes, output collects, and leaves afterwards in order.
func TestOutputIsWrittenInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, far := pipedOutput(t)
		var wg sync.WaitGroup
		wg.Go(func() {
			for range o.wake {
				o.mu.Lock()
				for o.rest != nil {
					o.writeRest()
				}
				o.mu.Unlock()
			}
		})
		for i := range byte(3) {
			o.mu.Lock()
			o.add(i)
			o.Flush()
			o.mu.Unlock()
			synctest.Wait()
		}
		o.mu.Lock()
		if n := o.Unaccepted(); n != 3 {
			t.Errorf("%d bytes wait for the socket, want 3", n)
		}
		if n := o.Space(); n != RoomBlocked-2 {
			t.Errorf("space for %d bytes while the socket is blocked, want %d", n, RoomBlocked-2)
		}
		o.mu.Unlock()
		got := make([]byte, 3)
		if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, []byte{0, 1, 2}) {
			t.Errorf("written: %v, %v", got, err)
		}
		synctest.Wait()
		o.mu.Lock()
		if n := o.Unaccepted(); n != 0 || o.writing {
			t.Errorf("%d bytes wait, writing: %v", n, o.writing)
		}
		if n := o.Space(); n != roomFlowing {
			t.Errorf("space for %d bytes while nothing waits, want %d", n, roomFlowing)
		}
		o.mu.Unlock()
		close(o.wake)
		wg.Wait()
	})
}

// Output whose write fails at the first byte was not seen; all earlier output may have been.
func TestOutputThatIsNotSeen(t *testing.T) {
	for name, c := range map[string]struct {
		read int // bytes that the peer reads of the second write
		want uint32
	}{
		"nothing written": {0, 1},
		"one byte":        {1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			o, far := pipedOutput(t)
			go func() {
				_, _ = io.ReadFull(far, make([]byte, 1+c.read))
				_ = far.Close()
			}()
			o.mu.Lock()
			defer o.mu.Unlock()
			for mark := uint32(1); !o.dead; mark++ {
				o.Marks.Set(mark)
				o.add(0)
				if mark > 1 {
					o.add(0)
				}
				o.Flush()
				o.writeRest()
			}
			if o.Marks.Unseen() != c.want {
				t.Errorf("output may have been seen up to %d, want %d", o.Marks.Unseen(), c.want)
			}
		})
	}
}

// The reader is paused while much output waits, and continues when that is written or the connection is over.
func TestOutputPausesItsReader(t *testing.T) {
	for name, end := range map[string]func(o *Output, far net.Conn){
		"written": func(o *Output, far net.Conn) {
			go func() { _, _ = io.Copy(io.Discard, far) }()
			o.Flush()
			o.writeRest()
		},
		"over": func(o *Output, _ net.Conn) { o.Kill(io.EOF) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, far := pipedOutput(t)
				o.add(make([]byte, pauseOutput+1)...)
				o.refused = true
				if o.Relieved() {
					t.Error("relieved although all output is waiting")
				}
				paused := true
				go func() {
					o.Pause()
					paused = false
				}()
				synctest.Wait()
				if !paused {
					t.Fatal("the reader goes on")
				}
				o.mu.Lock()
				end(o, far)
				o.mu.Unlock()
				synctest.Wait()
				if paused {
					t.Error("the reader is still paused")
				}
				o.mu.Lock()
				if !o.Relieved() || o.Relieved() {
					t.Error("refused output must become possible once")
				}
				o.mu.Unlock()
				_ = far.Close()
			})
		})
	}
}

// Output that is ending is written before the sending half is closed, and the peer has a moment to read it.
func TestOutputEndsWhenItIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, far := pipedOutput(t)
		o.socket.Conn = halfClosing{o.socket.Conn}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.add(1)
		o.ending = true
		o.Hand()
		if o.takeHalfClose() != nil {
			t.Error("closed before everything is written")
		}
		go func() { _, _ = io.ReadFull(far, make([]byte, 1)) }()
		o.writeRest()
		o.closeWritten()
		if o.takeHalfClose() == nil || o.takeHalfClose() != nil {
			t.Error("the sending half must be closed once")
		}
		if _, err := o.socket.Conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("reading on: %v", err)
		}
		if o.Late(time.Second, time.Second) || !o.Late(3*time.Second, time.Second) {
			t.Error("late is counted from the time when the end was noticed")
		}
	})
}

type halfClosing struct{ net.Conn }

func (halfClosing) CloseWrite() error { return nil }

func TestOutputOfHeaders(t *testing.T) {
	o, _ := pipedOutput(t)
	o.Pending.AppendHeaders(3, true)
	f, rest, ok, err := frames.Next(o.Pending.buf.b)
	if err != nil || !ok || len(rest) > 0 || f.ID != 3 || f.Kind != http2.FrameHeaders ||
		f.Flags != http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream {
		t.Errorf("frame %+v, rest %v, %v, %v", f, rest, ok, err)
	}
}

package relay

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// counter holds back its counts until the test releases them.
type counter struct {
	unwritable error
	asked      chan interface{ Counted(error) }
}

func newCounter() *counter { return &counter{asked: make(chan interface{ Counted(error) }, 16)} }

func (c *counter) Writable() error { return c.unwritable }

func (c *counter) Count(done interface{ Counted(error) }) { c.asked <- done }

func counting(c *counter) Options {
	return Options{Counter: c, Counted: map[string]bool{"/" + serviceName + "/UnaryCall": true}}
}

func TestCountedBeforeAcknowledged(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		code int
	}{{"counted", nil, 0}, {"not counted", errors.New("disk full"), 14}} {
		t.Run(c.name, func(t *testing.T) {
			counter := newCounter()
			b := newRawBackend(t)
			_, addr := startRelay(t, counting(counter), b.endpoint)
			client := rawClient(t, addr)
			client.call(1, true)
			p := b.accept()
			next(p, anyHeaders)
			p.answer(1)
			// Headers and data pass; the end waits.
			next(client, func(f *http2.DataFrame) bool { return len(f.Data()) == 8 })
			done := <-counter.asked
			client.must(client.WritePing(false, [8]byte{1}))
			for {
				f, err := client.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				if f, ok := f.(*http2.PingFrame); ok && f.IsAck() {
					break
				}
				if _, ok := f.(*http2.MetaHeadersFrame); ok {
					t.Fatal("acknowledged before it was counted")
				}
			}
			done.Counted(c.err)
			code, message := client.status(1)
			if code != c.code || c.err != nil && !strings.Contains(message, "not counted, so not done: disk full") {
				t.Errorf("status = %d %q, want %d", code, message, c.code)
			}
		})
	}
}

func TestNotCounted(t *testing.T) {
	counter := newCounter()
	b := newRawBackend(t)
	_, addr := startRelay(t, counting(counter), b.endpoint)
	client := rawClient(t, addr)
	client.call(1, true)
	p := b.accept()
	next(p, anyHeaders)
	p.headers(1, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "3")
	client.wantStatus(1, 3)
	if len(counter.asked) != 0 {
		t.Error("a failure was counted")
	}

	// A client that leaves while its call is being counted leaves nothing behind.
	client.call(3, true)
	next(p, anyHeaders)
	p.answer(3)
	done := <-counter.asked
	client.must(client.WriteRSTStream(3, http2.ErrCodeCancel))
	client.must(client.WritePing(false, [8]byte{1}))
	next(client, func(f *http2.PingFrame) bool { return f.IsAck() })
	done.Counted(nil)

	// A call that cannot be counted is not sent.
	counter.unwritable = errors.New("read-only")
	client.call(5, true)
	client.wantStatus(5, 14)
	p.must(p.WritePing(false, [8]byte{1}))
	if _, ok := next(p, func(f http2.Frame) bool {
		_, ok := f.(*http2.PingFrame)
		return ok || f.Header().StreamID == 5
	}).(*http2.PingFrame); !ok {
		t.Error("the call was sent to the backend")
	}
}

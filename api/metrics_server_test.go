package api

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener without an address. Its connections buffer nothing.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.conns:
		return nc, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

func (*pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// Clients that do not read hold a limited number of responses for a limited time.
func TestSlowReadersOfMetrics(t *testing.T) { synctest.Test(t, testSlowReadersOfMetrics) }

func testSlowReadersOfMetrics(t *testing.T) {
	const within = 2 * time.Second
	long := make([]byte, 1<<20) // more than the server's buffers hold
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(long) })
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- MetricsServer{Within: within}.serve(ctx, l, answer) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	// ask returns the status code of a response, and does not read the body.
	ask := func() int {
		near, far := net.Pipe()
		l.conns <- far
		t.Cleanup(func() { _ = near.Close() })
		_, _ = io.WriteString(near, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
		answer, err := http.ReadResponse(bufio.NewReader(near), nil) //nolint:bodyclose // Cleanup closes the connection
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode
	}
	for range metricsAnswers {
		if code := ask(); code != http.StatusOK {
			t.Fatalf("status %d", code)
		}
	}
	for _, wait := range []time.Duration{0, within - 1} {
		time.Sleep(wait)
		if code := ask(); code != http.StatusServiceUnavailable {
			t.Errorf("status %d while all answers are being read, want %d", code, http.StatusServiceUnavailable)
		}
	}
	time.Sleep(time.Nanosecond)
	synctest.Wait()
	if code := ask(); code != http.StatusOK {
		t.Errorf("status %d after the time for an answer, want %d", code, http.StatusOK)
	}
}

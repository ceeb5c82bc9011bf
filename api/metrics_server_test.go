package api

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// Clients that do not read hold a limited number of responses for a limited time.
func TestSlowReadersOfMetrics(t *testing.T) {
	long := make([]byte, 16<<20) // more than the socket buffers hold
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(long) })
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- MetricsServer{Within: 2 * time.Second}.serve(ctx, l, answer) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	// ask returns the status code of a response, and does not read the body.
	ask := func() int {
		nc, err := net.Dial("tcp", l.Addr().String()) //nolint:noctx // a test
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
		_ = nc.(*net.TCPConn).SetReadBuffer(4 << 10)
		_, _ = io.WriteString(nc, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
		answer, err := http.ReadResponse(bufio.NewReader(nc), nil) //nolint:bodyclose // Cleanup closes the connection
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
	if code := ask(); code != http.StatusServiceUnavailable {
		t.Errorf("status %d while all answers are being read, want %d", code, http.StatusServiceUnavailable)
	}
	for code := 0; code != http.StatusOK; code = ask() {
		time.Sleep(10 * time.Millisecond)
	}
}

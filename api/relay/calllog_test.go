package relay

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"

	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// lines is a log whose lines a test can read.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take returns the lines that have been logged with that message.
func (l *lines) take(t *testing.T, message string) (found []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	d := json.NewDecoder(&l.b)
	for {
		line := map[string]any{}
		if err := d.Decode(&line); errors.Is(err, io.EOF) {
			return found
		} else if err != nil {
			t.Fatal(err)
		}
		if line["msg"] == message {
			found = append(found, line)
		}
	}
}

func TestCallIsLogged(t *testing.T) {
	var log lines
	b := newRawBackend(t)
	b.endpoint.Worker = "worker-0"
	handler := slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})
	r, addr := startRelay(t, Options{Log: slog.New(handler)}, b.endpoint)
	client := rawClient(t, addr)
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	client.call(1, true, "traceparent", "00-"+trace+"-00f067aa0ba902b7-01", protocol.RequestID, "r-1")
	p := b.accept()
	next(p, anyHeaders)
	p.headers(1, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "9")
	client.wantStatus(1, 9)
	client.call(3, true, "traceparent", "none")
	next(p, anyHeaders)
	p.answer(3)
	client.wantStatus(3, 0)
	r.Close()
	got := log.take(t, "call ended")
	if len(got) != 2 {
		t.Fatalf("%d lines for two calls: %v", len(got), got)
	}
	for key, want := range map[string]any{
		"service": serviceName, "method": "UnaryCall", "trace_id": trace, "request_id": "r-1",
		"address": b.endpoint.Address, "worker": "worker-0", "code": "FAILED_PRECONDITION", "attempts": 1.0,
	} {
		if got[0][key] != want {
			t.Errorf("%s is %v, want %v", key, got[0][key], want)
		}
	}
	if d, ok := got[0]["duration"].(float64); !ok || d <= 0 {
		t.Errorf("duration is %v", got[0]["duration"])
	}
	for _, key := range []string{"trace_id", "request_id"} {
		if v, ok := got[1][key]; ok {
			t.Errorf("%s of a call that has none is %v", key, v)
		}
	}
}

// A warning names its peer, even if there was no connection.
func TestWarningsAreWhole(t *testing.T) {
	var log lines
	gone := refusing(t)
	_, addr := startRelay(t, Options{Log: slog.New(slog.NewJSONHandler(&log, nil))}, &services.Endpoint{Address: gone})
	client := rawClient(t, addr)
	client.call(1, true, "grpc-timeout", "50m")
	client.wantStatus(1, protocol.CodeDeadlineExceeded)
	var got []map[string]any // the attempt to connect may end after the call
	awaitThat(t, "no warning about an endpoint that refuses", func() bool {
		got = log.take(t, "connection to endpoint lost")
		return len(got) > 0
	})
	for key, want := range map[string]any{
		"address": gone, "error": "connection refused", "suppressed": 0.0,
	} {
		if got[0][key] != want {
			t.Errorf("%s is %v, want %v", key, got[0][key], want)
		}
	}
}

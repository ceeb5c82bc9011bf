package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"syscall"
	"testing"
	"time"
)

// Warnings are logged once a second and ten times in a row, and each line counts those that were suppressed before it.
func TestWarningsAreFew(t *testing.T) {
	var out bytes.Buffer
	now := time.Duration(time.Hour)
	l := New(slog.New(slog.NewJSONHandler(&out, nil)), func() time.Duration { return now })
	lines := func() (lines []map[string]any) {
		for d := json.NewDecoder(&out); ; {
			line := map[string]any{}
			if err := d.Decode(&line); errors.Is(err, io.EOF) {
				return lines
			} else if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, line)
		}
	}
	const failures = 100
	for range failures {
		l.HandshakeFailed("192.0.2.1:1", io.EOF)
	}
	got := lines()
	if len(got) != 10 {
		t.Fatalf("%d lines for %d failures at once, want 10", len(got), failures)
	}
	for key, want := range map[string]any{
		"msg": "TLS handshake failed", "client_address": "192.0.2.1:1",
		"error": "closed by the other side", "suppressed": 0.0,
	} {
		if got[0][key] != want {
			t.Errorf("%s is %v, want %v", key, got[0][key], want)
		}
	}
	// However many were suppressed, a second later there is room for one.
	now += time.Second
	for range failures {
		l.HandshakeFailed("192.0.2.1:1", io.EOF)
	}
	if got = lines(); len(got) != 1 || got[0]["suppressed"] != failures-10.0 {
		t.Fatalf("after a second: %v, want one line", got)
	}
	now += failures * time.Second
	l.ConnectionLost("192.0.2.2:1", syscall.ECONNREFUSED)
	l.ConnectionLost("192.0.2.2:1", errors.New("x"))
	got = lines()
	if len(got) != 2 || got[0]["suppressed"] != failures-1.0 || got[1]["suppressed"] != 0.0 ||
		got[0]["error"] != "connection refused" || got[1]["error"] != "x" {
		t.Errorf("the next lines are %v", got)
	}
	l.End()
	l.ConnectionLost("192.0.2.2:1", io.EOF)
	l.AcceptFailed("192.0.2.3:1", syscall.EMFILE)
	if got := lines(); len(got) != 0 {
		t.Errorf("while the relay closes: %v", got)
	}
}

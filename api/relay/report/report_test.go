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

// Warnings are logged once a second and ten times in a row, and each line counts those that were left out before it.
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
	const troubles = 100
	for range troubles {
		l.Trouble("test", "somebody", io.EOF)
	}
	got := lines()
	if len(got) != 10 {
		t.Fatalf("%d lines for %d troubles at once, want 10", len(got), troubles)
	}
	for key, want := range map[string]any{
		"msg": "trouble with a connection", "what": "test", "peer": "somebody",
		"err": "closed by the other side", "left_out": 0.0,
	} {
		if got[0][key] != want {
			t.Errorf("%s is %v, want %v", key, got[0][key], want)
		}
	}
	// However many were left out, a second later there is room for one.
	now += time.Second
	for range troubles {
		l.Trouble("test", "somebody", io.EOF)
	}
	if got = lines(); len(got) != 1 || got[0]["left_out"] != troubles-10.0 {
		t.Fatalf("after a second: %v, want one line", got)
	}
	now += troubles * time.Second
	l.Trouble("test", "somebody", syscall.ECONNREFUSED)
	l.Trouble("test", "somebody", errors.New("x"))
	got = lines()
	if len(got) != 2 || got[0]["left_out"] != troubles-1.0 || got[1]["left_out"] != 0.0 ||
		got[0]["err"] != "connection refused" || got[1]["err"] != "x" {
		t.Errorf("the next lines are %v", got)
	}
	l.End()
	l.Trouble("test", "somebody", io.EOF)
	if got := lines(); len(got) != 0 {
		t.Errorf("while the relay closes: %v", got)
	}
	l.Warning("test", "somebody", io.EOF)
	if got := lines(); len(got) != 1 {
		t.Errorf("a warning that is no connection's fault: %v", got)
	}
}

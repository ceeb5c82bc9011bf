package render

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lockedBuffer is written by progress and read by the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestProgressIsToldOnATerminalAfterASecondAndCleared(t *testing.T) {
	for name, c := range map[string]struct {
		terminal bool
		takes    time.Duration
		shown    []string
	}{
		"at once":        {true, 900 * time.Millisecond, nil},
		"not a terminal": {false, time.Minute, nil},
		"long":           {true, 2500 * time.Millisecond, []string{"checking: 1 s", "checking: 25 %, 2 s"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var out lockedBuffer
			p := newProgress(&out, "checking", c.terminal)
			time.Sleep(min(c.takes, 1500*time.Millisecond))
			p.Total.Store(8)
			p.Done.Store(2)
			time.Sleep(max(0, c.takes-1500*time.Millisecond))
			p.End()
			got := out.String()
			for _, want := range c.shown {
				if !strings.Contains(got, want) {
					t.Errorf("%s: %q lacks %q", name, got, want)
				}
			}
			if c.shown == nil && got != "" || c.shown != nil && !strings.HasSuffix(got, "\r\x1b[K") {
				t.Errorf("%s: %q", name, got)
			}
		})
	}
}

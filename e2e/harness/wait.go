//go:build e2e && linux

package harness

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// Patience limits every wait for an event that should take milliseconds. It is long because the machine may be
// loaded; only a failing test waits for all of it.
const Patience = 30 * time.Second

// Poll calls check until it returns nil, and returns its last error if that takes too long.
func Poll(check func() error) error {
	deadline := time.Now().Add(Patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := check()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %s: %w", Patience, err)
		}
		time.Sleep(pause)
	}
}

// WaitFor polls until check returns nil. Tests wait in no other way.
func WaitFor(t *testing.T, what string, check func() error) {
	t.Helper()
	if err := Poll(check); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// AwaitMore returns when count has risen by n.
func AwaitMore(t *testing.T, what string, count *atomic.Int64, n int64) {
	t.Helper()
	goal := count.Load() + n
	WaitFor(t, fmt.Sprintf("%d %s", goal, what), func() error {
		if got := count.Load(); got < goal {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
}

// Times returns how often a test repeats its work under load: HSU_E2E_TIMES, n by default.
func Times(n int) int {
	if times, err := strconv.Atoi(os.Getenv("HSU_E2E_TIMES")); err == nil {
		return times
	}
	return n
}

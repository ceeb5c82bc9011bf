package retry

import (
	"testing"
	"time"
)

func TestWaiting(t *testing.T) {
	const second = time.Second
	w := Wait{}
	if left := w.Left(5*second, Deadline{}, 10*second); left != 10*second {
		t.Errorf("a call that begins to wait may wait for %v", left)
	}
	canceled := 0
	w.Begin(ForEndpoint, func() bool { canceled++; return true }, time.NewTimer(time.Hour))
	if !w.On() {
		t.Error("the call does not wait")
	}
	w.End()
	if w.End(); w.On() || canceled != 1 {
		t.Errorf("the wait is on: %v, canceled %d times", w.On(), canceled)
	}
	if left := w.Left(8*second, Deadline{}, 10*second); left != 7*second {
		t.Errorf("a call that waits again may wait for %v, want the rest", left)
	}
	if left := w.Left(8*second, DeadlineAfter(0, 9*second), 10*second); left != second {
		t.Errorf("a call with a deadline may wait for %v, want until then", left)
	}
	for _, want := range []time.Duration{5, 10, 20, 40, 80, 160, 250, 250} {
		if got := w.NextPause(); got != want*time.Millisecond {
			t.Errorf("a pause of %v, want %v ms", got, int(want))
		}
	}
}

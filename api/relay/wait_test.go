package relay

import (
	"testing"
	"time"
)

func TestWaiting(t *testing.T) {
	const second = time.Second
	w := waiting{}
	if left := w.left(5*second, deadline{}, 10*second); left != 10*second {
		t.Errorf("a call that begins to wait may wait for %v", left)
	}
	canceled := 0
	w.begin(forEndpoint, func() bool { canceled++; return true }, time.NewTimer(time.Hour))
	if !w.on() {
		t.Error("the call does not wait")
	}
	w.end()
	if w.end(); w.on() || canceled != 1 {
		t.Errorf("the wait is on: %v, canceled %d times", w.on(), canceled)
	}
	if left := w.left(8*second, deadline{}, 10*second); left != 7*second {
		t.Errorf("a call that waits again may wait for %v, want the rest", left)
	}
	if left := w.left(8*second, deadlineAfter(0, 9*second), 10*second); left != second {
		t.Errorf("a call with a deadline may wait for %v, want until then", left)
	}
	for _, want := range []time.Duration{5, 10, 20, 40, 80, 160, 250, 250} {
		if got := w.nextPause(); got != want*time.Millisecond {
			t.Errorf("a pause of %v, want %v ms", got, int(want))
		}
	}
}

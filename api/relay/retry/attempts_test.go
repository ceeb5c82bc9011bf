package retry

import (
	"slices"
	"testing"

	"github.com/core-tools/hsu-master/supervisor/services"
)

func TestMayTryAgain(t *testing.T) {
	for _, c := range []struct {
		name          string
		f             Failed
		again, budget bool
	}{
		{"unseen", Failed{Unseen: true, Whole: true, Attempts: 1}, true, false},
		{"seen", Failed{Whole: true, Attempts: 1}, false, false},
		{"seen and marked", Failed{Idempotent: true, Whole: true, Attempts: 1}, true, true},
		{"unseen and marked", Failed{Unseen: true, Idempotent: true, Whole: true, Attempts: 1}, true, false},
		{"request no longer there", Failed{Unseen: true, Attempts: 1}, false, false},
		{"answer begun", Failed{Unseen: true, Idempotent: true, Whole: true, Started: true, Attempts: 1}, false, false},
		{"unseen, after many", Failed{Unseen: true, Whole: true, Attempts: 10 * MostAttempts}, true, false},
		{"last attempt", Failed{Idempotent: true, Whole: true, Attempts: MostAttempts}, false, false},
		{"last but one", Failed{Idempotent: true, Whole: true, Attempts: MostAttempts - 1}, true, true},
	} {
		if again, budget := MayTryAgain(c.f); again != c.again || budget != c.budget {
			t.Errorf("%s: %v %v, want %v %v", c.name, again, budget, c.again, c.budget)
		}
	}
}

func TestAttempts(t *testing.T) {
	var a Attempts
	first, second := &services.Endpoint{}, &services.Endpoint{}
	begin := func(e *services.Endpoint) {
		a.Choose(e)
		a.Begin()
	}
	want := func(when string, all int, tried ...*services.Endpoint) {
		t.Helper()
		if !slices.Equal(a.Endpoints(), tried) || a.All != all {
			t.Errorf("%s: %d attempts, the consecutive ones at %v; want %d, %v", when, a.All, a.Endpoints(), all, tried)
		}
	}
	a.Forgive()
	begin(first)
	begin(second)
	want("two attempts", 2, first, second)
	a.Forgive()
	want("forgiven", 2, first)
	begin(second)
	a.Undo()
	want("undone", 2, first)
	a.Begin()
	if a.MustPause() {
		t.Error("a pause after two attempts")
	}
	begin(first)
	if !a.MustPause() {
		t.Error("no pause after three attempts")
	}
	a.Pause()
	want("paused", 4)
}

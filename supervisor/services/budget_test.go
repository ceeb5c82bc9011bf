package services

import (
	"testing"
	"time"
)

func TestRetryBudget(t *testing.T) {
	const second = time.Second
	// calls are counted first; then as many retries as possible are taken.
	type step struct {
		at    time.Duration
		calls int
		want  int
	}
	for name, steps := range map[string][]step{
		"the first second has the least":        {{0, 0, 10}},
		"it is gone then":                       {{0, 0, 10}, {second / 2, 0, 0}},
		"a share of the calls":                  {{0, 1000, 210}},
		"each second brings its least":          {{0, 0, 10}, {2 * second, 0, 10}, {5 * second, 0, 30}},
		"a quiet service saves ten seconds' up": {{0, 1, 10}, {time.Minute - 1, 0, 99}},
		"calls count for ten seconds at most": {
			{0, 1000, 210}, {9 * second, 0, 80}, {10 * second, 0, 0}, {15 * second, 0, 50},
		},
		"what was used is given back after that": {{4 * second, 1000, 210}, {14 * second, 0, 90}},
	} {
		var b budget
		for _, s := range steps {
			for range s.calls {
				b.call(s.at)
			}
			got := 0
			for got < 10_000 && b.retry(s.at) {
				got++
			}
			if got != s.want {
				t.Errorf("%s: at %v after %d calls %d second tries, want %d", name, s.at, s.calls, got, s.want)
			}
		}
	}
}

func TestEjection(t *testing.T) {
	for name, test := range map[string]struct {
		ready, out int
		want       bool
	}{
		"the only one": {1, 0, false}, "one of two": {2, 0, true}, "the last": {2, 1, false}, "none": {0, 0, false},
		"one of three": {3, 0, true}, "two of three": {3, 1, false},
		"half": {10, 4, true}, "more than half": {10, 5, false},
	} {
		if got := mayEject(test.ready, test.out); got != test.want {
			t.Errorf("%s: %t, want %t", name, got, test.want)
		}
	}
	for name, test := range map[string]struct {
		before standing
		now    time.Duration
		want   time.Duration
	}{
		"the first time": {standing{}, time.Hour, ejectFor},
		"the third time": {standing{ejections: 2, ejectedUntil: time.Hour}, time.Hour, 3 * ejectFor},
		"one was forgiven": {
			standing{ejections: 2, ejectedUntil: time.Hour}, time.Hour + forgiveAfter, 2 * ejectFor,
		},
		"all were":                        {standing{ejections: 2, ejectedUntil: time.Hour}, 3 * time.Hour, ejectFor},
		"so often that it is the longest": {standing{ejections: 1000, ejectedUntil: time.Hour}, time.Hour, ejectMost},
	} {
		m := test.before
		m.failures = ejectAfter
		if got := m.eject(test.now); got != test.want || m.failures != 0 || !m.ejected(test.now) ||
			m.ejected(test.now+got) {
			t.Errorf("%s: for %v, want %v; then %+v", name, got, test.want, m)
		}
	}
}

package api

import "testing"

func TestMayTryAgain(t *testing.T) {
	answered, lost, unseen := attempt{}, attempt{lost: true}, attempt{lost: true, unseen: true}
	for _, test := range []struct {
		name          string
		attempt       attempt
		attempts      int
		idempotent    bool
		again, budget bool
	}{
		{"answered", answered, 1, false, false, false},
		{"answered, with an id", answered, 1, true, false, false},
		{"seen: it may have been executed", lost, 1, false, false, false},
		{"seen, with an id", lost, 1, true, true, true},
		{"seen, with an id, the last but one", lost, mostIdempotent - 1, true, true, true},
		{"seen, with an id, the last", lost, mostIdempotent, true, false, false},
		{"unseen", unseen, 1, false, true, false},
		{"unseen, the last", unseen, mostAttempts, false, false, false},
		{"unseen, with an id", unseen, mostAttempts, true, true, false},
		{"unseen, with an id, the last", unseen, mostIdempotent, true, false, false},
	} {
		again, budget := mayTryAgain(test.attempt, test.attempts, test.idempotent)
		if again != test.again || budget != test.budget {
			t.Errorf("%s: again %v, from the budget %v, want %v, %v", test.name, again, budget, test.again, test.budget)
		}
	}
}

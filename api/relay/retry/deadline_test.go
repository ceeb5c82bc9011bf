package retry

import (
	"math"
	"testing"
	"time"
)

func TestDeadline(t *testing.T) {
	for _, c := range []struct {
		d      Deadline
		now    time.Duration
		passed bool
	}{
		{Deadline{}, math.MaxInt64, false},
		{DeadlineAfter(5, 0), 5, true},
		{DeadlineAfter(5, 2), 6, false},
		{DeadlineAfter(5, 2), 7, true},
		{DeadlineAfter(5, math.MaxInt64), math.MaxInt64 - 1, false},
	} {
		if got := c.d.Passed(c.now); got != c.passed {
			t.Errorf("%+v.passed(%d) = %t", c.d, c.now, got)
		}
	}
}

package services

import "time"

const (
	// retryShare is the part of the calls that may be retried.
	retryShare = 0.2
	// retryLeast is the number of additional retries per second.
	retryLeast = 10
	// budgetSpan is the period over which calls and retries are counted. It consists of two halves, used alternately.
	budgetSpan = 10 * time.Second
)

// budget bounds retries, so that retries do not double the load of a service that already fails.
type budget struct {
	half      int64 // index of the current half; half 0 begins at the service's beginning
	calls     [2]int
	retries   [2]int
	beginning time.Duration
	begun     bool
}

// at advances to the half that contains now, and returns its slot.
func (b *budget) at(now time.Duration) int {
	half := int64(now / (budgetSpan / 2))
	if !b.begun {
		b.begun, b.half, b.beginning = true, half, now
	}
	for range min(half-b.half, 2) {
		b.half++
		b.calls[b.half&1], b.retries[b.half&1] = 0, 0
	}
	b.half = max(b.half, half)
	return int(half & 1)
}

// call counts a call that has ended, once for all of its tries.
func (b *budget) call(now time.Duration) { b.calls[b.at(now)]++ }

// retry takes one retry from the budget. It returns false if the budget is used up.
func (b *budget) retry(now time.Duration) bool {
	i := b.at(now)
	covered := budgetSpan/2 + now%(budgetSpan/2)
	covered = min(covered, max(time.Second, now-b.beginning))
	most := retryShare*float64(b.calls[0]+b.calls[1]) + retryLeast*covered.Seconds()
	if float64(b.retries[0]+b.retries[1]+1) > most {
		return false
	}
	b.retries[i]++
	return true
}

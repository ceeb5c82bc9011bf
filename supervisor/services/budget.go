package services

import "time"

const (
	// retryShare of the calls may be tried a second time,
	retryShare = 0.2
	// and retryLeast each second besides.
	retryLeast = 10
	// budgetSpan is what is looked back on, in two halves that take turns.
	budgetSpan = 10 * time.Second
)

// budget bounds second tries, so that a service in trouble does not get the double of its calls.
type budget struct {
	half      int64 // the present one, counted from the service's beginning
	calls     [2]int
	retries   [2]int
	beginning time.Duration
	begun     bool
}

// at moves on to the half that now is in.
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

// call counts a call that has ended, however often it was tried.
func (b *budget) call(now time.Duration) { b.calls[b.at(now)]++ }

// retry takes one second try, where there is one.
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

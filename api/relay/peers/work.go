package peers

import "time"

// Units of work. Frames that carry nothing of a call cost units; frames that carry something of a call earn them
// back.
const (
	// Frame is the cost of a frame that does nothing, and the amount that a frame of a call earns.
	Frame = 4
	// newWork is the minimum budget of a new connection, however much its peer owes.
	newWork = 200 * Frame
)

// connWork allows 2,000 frames that do nothing, and then 200 a second.
var connWork = rate{burst: 2000 * Frame, every: 1250 * time.Microsecond}

// inherited returns the work that a new connection of a peer owes if earlier ones have left owed unpaid.
func inherited(owed *bucket, now time.Duration) int64 {
	return min(owed.fullAt.Load(), int64(now+connWork.whole()-newWork*connWork.every))
}

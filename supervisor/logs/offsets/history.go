package offsets

import (
	"slices"
	"time"
)

// sight is the logical offset of the end of a log at a time, in nanoseconds since 1970.
type sight struct {
	at, end int64
}

// history are sights of a log, in the order of time. It forgets every other one when it is full, so it reaches back
// further and further, ever less exactly.
type history struct {
	sights []sight
	apart  int64 // the least time between two
}

const (
	mostSights = 128
	leastApart = int64(time.Second)
)

func (h *history) add(when time.Time, end int64) {
	s := sight{when.UnixNano(), end}
	n := len(h.sights)
	// Later sights are of a log that was truncated since, or of a clock that was set back.
	for n > 0 && (h.sights[n-1].at > s.at || h.sights[n-1].end > s.end) {
		n--
	}
	h.sights = h.sights[:n]
	if n > 0 && s.at-h.sights[n-1].at < max(leastApart, h.apart) {
		return
	}
	if n > 1 && h.sights[n-1].end == end && h.sights[n-2].end == end {
		h.sights[n-1] = s // the log does not grow
		return
	}
	if h.sights = append(h.sights, s); len(h.sights) < mostSights {
		return
	}
	half := h.sights[:0]
	for i := 0; i < mostSights; i += 2 {
		half = append(half, h.sights[i])
	}
	h.sights, h.apart = half, 2*max(leastApart, h.apart)
}

// before returns the end at the last sight before a time.
func (h *history) before(when time.Time) (int64, bool) {
	i, _ := slices.BinarySearchFunc(h.sights, when.UnixNano(), func(s sight, at int64) int {
		if s.at < at {
			return -1
		}
		return 1
	})
	if i == 0 {
		return 0, false
	}
	return h.sights[i-1].end, true
}

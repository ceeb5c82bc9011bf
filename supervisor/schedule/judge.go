package schedule

import "time"

// Mark is how far a worker has come in its schedule. It is recorded.
type Mark struct {
	Next time.Time // the due time that the worker waits for; zero before the first
	Last time.Time // the last one that was run, skipped or missed: neither it nor an earlier one is run again
}

// Situation is the state of a worker at the moment of a decision.
type Situation struct {
	Now time.Time
	// Late is how long ago a due time may have come and still be run as usual. A due time before that was missed.
	Late time.Duration
	// CatchUp makes one run up for those that were missed.
	CatchUp bool
	// Busy is set if no run can begin, because one is under way.
	Busy bool
}

// Verdict is the decision about the due times that have come.
type Verdict struct {
	Mark Mark      // to be recorded, before the run
	Run  time.Time // the due time that is run now; zero if there is none
	// Passed is the number of due times that have come and are not run, up to [MaxPassed]; First is the first of them.
	Passed int
	First  time.Time
}

// MaxPassed is how far due times that are not run are counted.
const MaxPassed = 1000

// wrongClock is how far the last due time may be in the future. If it is farther, the clock was wrong when it came.
const wrongClock = 366 * 24 * time.Hour

// Judge decides. It is pure.
//
// If the clock was set back, due times that have come before do not come again: the worker waits until the clock has
// passed the last of them, unless that is more than a year away.
func Judge(s Schedule, m Mark, at Situation) Verdict {
	at.Now = at.Now.Round(0).UTC()
	if m.Last.Sub(at.Now) > wrongClock {
		m.Last = time.Time{}
	}
	if m.Next.IsZero() || m.Next.After(at.Now) {
		m.Next = s.Next(later(at.Now, m.Last))
		return Verdict{Mark: m}
	}
	first, last := m.Next, s.before(m.Next, at.Now)
	v := Verdict{Mark: Mark{Next: s.Next(later(at.Now, last)), Last: last}}
	if !at.Busy && (at.CatchUp || at.Now.Sub(last) <= at.Late) {
		v.Run = last
	}
	for due := first; v.Passed < MaxPassed && !due.IsZero() && !due.After(last); due = s.Next(due) {
		if !due.Equal(v.Run) {
			v.Passed++
		}
	}
	if v.Passed > 0 {
		v.First = first
	}
	return v
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

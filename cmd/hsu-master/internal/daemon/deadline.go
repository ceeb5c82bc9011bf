package daemon

import (
	"os"
	"sync/atomic"
	"time"
)

// stopMargin is the time that a stop may take beyond the grace period of workers, to kill them and to close the
// state. It is shorter than the margin of the unit's TimeoutStopSec=.
const stopMargin = 15 * time.Second

// bound watches for signals that stop or detach the master, and for its end by a command, and calls end if the stop
// takes too long: a disk or a network file system that hangs would block it forever. The next master then recovers as
// after a crash. The returned function ends the watch. grace returns the longest grace period; it is asked when the
// stop begins.
func (s *signals) bound(grace func() time.Duration, end func(took time.Duration)) (release func()) {
	done := make(chan struct{})
	go awaitEnd(s.heard, done, grace, end)
	return func() { close(done) }
}

func awaitEnd(
	heard <-chan os.Signal, done <-chan struct{}, grace func() time.Duration, end func(took time.Duration),
) {
	var begun, bound time.Time
	var late <-chan time.Time
	for {
		select {
		case sig := <-heard:
			switch {
			case begun.IsZero():
				begun = time.Now()
				bound = begun.Add(grace() + stopMargin)
				late = time.After(time.Until(bound))
			case sig == os.Interrupt: // a second INT: workers get no more grace period
				late = time.After(min(stopMargin, time.Until(bound)))
			}
		case <-late:
			end(time.Since(begun))
			return
		case <-done:
			return
		}
	}
}

// StopTime is the longest time that an orderly stop of the workers takes. A reload can raise it, and nothing lowers it,
// because workers of the former units may still be stopping.
type StopTime struct{ longest atomic.Int64 }

// Longest returns the time.
func (s *StopTime) Longest() time.Duration { return time.Duration(s.longest.Load()) }

// Raise raises the time. It must not be called twice at the same time.
func (s *StopTime) Raise(to time.Duration) { s.longest.Store(max(s.longest.Load(), int64(to))) }

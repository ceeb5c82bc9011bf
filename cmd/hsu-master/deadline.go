package main

import (
	"os"
	"os/signal"
	"time"
)

// stopMargin is the time that a stop may take beyond the grace period of workers, to kill them and to close the
// state. It is shorter than the margin of the unit's TimeoutStopSec=.
const stopMargin = 15 * time.Second

// bound watches for signals that stop or detach the master, and calls end if the stop takes too long: a disk or a
// network file system that hangs would block it forever. The next master then recovers as after a crash. The
// returned function ends the watch.
func (s *signals) bound(grace time.Duration, end func(took time.Duration)) (release func()) {
	heard, done := make(chan os.Signal, 4), make(chan struct{})
	signal.Notify(heard, s.ending...)
	go awaitEnd(heard, done, grace, end)
	return func() {
		signal.Stop(heard)
		close(done)
	}
}

func awaitEnd(heard <-chan os.Signal, done <-chan struct{}, grace time.Duration, end func(took time.Duration)) {
	var begun time.Time
	var late <-chan time.Time
	for {
		select {
		case sig := <-heard:
			switch {
			case begun.IsZero():
				begun = time.Now()
				late = time.After(grace + stopMargin)
			case sig == os.Interrupt: // a second INT: workers get no more grace period
				late = time.After(min(stopMargin, time.Until(begun.Add(grace+stopMargin))))
			}
		case <-late:
			end(time.Since(begun))
			return
		case <-done:
			return
		}
	}
}

package worker

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-master/supervisor/probe"
)

// startup is a start that is under way: the probe that the worker has to pass, and the last answer to it. The
// worker's goroutine begins and ends it, a helper reports, any goroutine reads.
type startup struct {
	cancel context.CancelFunc // ends the wait, nil if there is none
	wait   atomic.Pointer[wait]
	opened atomic.Bool // a process listens on the port
}

// wait is one thing that a starting worker has to do.
type wait struct {
	what   string    // "port 40001", "Ping"
	answer error     // nil: none yet
	at     time.Time // of the answer
	due    time.Time // when it is probed again; zero: now, or all the time
}

func (s *startup) begin(cancel context.CancelFunc) {
	s.cancel = cancel
	s.wait.Store(nil)
	s.opened.Store(false)
}

// end ends the wait, if there is one.
func (s *startup) end() {
	if s.cancel != nil {
		s.cancel()
	}
	s.wait.Store(nil)
}

// report notes the probe, its last answer and when it is made again.
func (s *startup) report(what string, answer error, due time.Time) {
	s.wait.Store(&wait{what: what, answer: answer, at: time.Now(), due: due})
}

// waitingFor describes the wait for people, "" if there is none.
func (s *startup) waitingFor() string {
	if w := s.wait.Load(); w != nil {
		return w.String()
	}
	return ""
}

func (w *wait) String() string {
	if w.answer == nil {
		return w.what + ": no answer yet"
	}
	return w.what + ": " + probe.Brief(w.answer)
}

func (w *wait) info() CheckInfo {
	info := CheckInfo{Use: string(useStart), Probe: w.what, Due: w.due}
	if w.answer != nil {
		info.Answer, info.At = probe.Brief(w.answer), w.at
	}
	return info
}

package worker

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-master/supervisor/probe"
)

// startup is the last start. The worker's goroutine begins and ends it, any goroutine reads the probe that it waits
// for.
type startup struct {
	cancel context.CancelFunc       // ends the wait, nil if there is none
	halt   func()                   // ends start.before, nil if it does not run
	last   *progress                // of the last start
	shown  atomic.Pointer[progress] // the same while the start is under way, else nil
}

// progress is what the helper of one start reports: the probe that the worker has to pass, and the last answer to it. A
// helper that reports after the end of its start changes nothing that is shown.
type progress struct {
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

func (s *startup) begin(cancel context.CancelFunc) *progress {
	s.cancel, s.last = cancel, new(progress)
	s.shown.Store(s.last)
	return s.last
}

// end ends the wait, if there is one.
func (s *startup) end() {
	if s.cancel != nil {
		s.cancel()
	}
	s.shown.Store(nil)
}

// endBefore ends start.before, if it runs.
func (s *startup) endBefore() {
	if s.halt != nil {
		s.halt()
	}
}

// opened reports whether a process has listened on the port of the last start.
func (s *startup) opened() bool { return s.last != nil && s.last.opened.Load() }

// waits returns the condition that the start waits for, nil if there is none or it has not reported yet.
func (s *startup) waits() *wait {
	if p := s.shown.Load(); p != nil {
		return p.wait.Load()
	}
	return nil
}

// waitingFor describes the wait for people, "" if there is none.
func (s *startup) waitingFor() string {
	if w := s.waits(); w != nil {
		return w.String()
	}
	return ""
}

// report notes the probe, its last answer and when it is made again.
func (p *progress) report(what string, answer error, due time.Time) {
	p.wait.Store(&wait{what: what, answer: answer, at: time.Now(), due: due})
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

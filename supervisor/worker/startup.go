package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"

	"google.golang.org/grpc/status"
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
	what   string // "port 40001", "Ping"
	answer error  // nil: none yet
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

// report notes the probe and its last answer.
func (s *startup) report(what string, answer error) {
	s.wait.Store(&wait{what: what, answer: answer})
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
	return w.what + ": " + brief(w.answer)
}

// maxAnswer limits the shown length of an answer, which may come from the worker.
const maxAnswer = 200

// brief shortens an answer to its distinctive part: the errno of a failed connect, or the code and the text of a
// gRPC status.
func brief(err error) string {
	text := err.Error()
	var errno syscall.Errno
	var withStatus interface{ GRPCStatus() *status.Status }
	switch {
	case errors.As(err, &errno):
		text = errno.Error()
	case errors.As(err, &withStatus):
		s := withStatus.GRPCStatus()
		text = fmt.Sprintf("%s: %s", s.Code(), s.Message())
	}
	return strings.ToValidUTF8(text[:min(len(text), maxAnswer)], "\uFFFD")
}

package worker

import (
	"errors"
	"testing"
	"time"
)

// The helper of a start notices its end late: its last report is shown neither for an ended worker nor for the next
// start.
func TestReportAfterTheEndOfAStartIsNotShown(t *testing.T) {
	var s startup
	first := s.begin(func() {})
	first.report("Ping", errors.New("refused"), time.Time{})
	if got := s.waitingFor(); got != "Ping: refused" {
		t.Errorf("a start waits for %q", got)
	}
	s.end()
	first.report("Ping", errors.New("canceled"), time.Time{})
	first.opened.Store(true)
	if s.waits() != nil || s.waitingFor() != "" || !s.opened() {
		t.Errorf("after the end it waits for %q, opened = %v", s.waitingFor(), s.opened())
	}
	s.begin(func() {})
	first.report("Ping", errors.New("canceled"), time.Time{})
	if s.waits() != nil || s.opened() {
		t.Errorf("the next start waits for %q, opened = %v", s.waitingFor(), s.opened())
	}
}

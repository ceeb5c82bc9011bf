package main

import (
	"os"
	"os/signal"
	"syscall"
)

// signals are what an operator can tell a running master.
type signals struct {
	stops, detaches, ignored chan os.Signal
}

func watchSignals() *signals {
	s := &signals{
		// Room for a second INT that comes while the first is acted on.
		stops:    make(chan os.Signal, 2),
		detaches: make(chan os.Signal, 1),
		ignored:  make(chan os.Signal, 1),
	}
	signal.Notify(s.stops, os.Interrupt, syscall.SIGTERM)
	notifyUnix(s)
	return s
}

func (s *signals) stop() {
	for _, c := range []chan os.Signal{s.stops, s.detaches, s.ignored} {
		signal.Stop(c)
	}
}

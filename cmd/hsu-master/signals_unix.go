//go:build unix

package main

import (
	"os/signal"
	"syscall"
)

func notifyUnix(s *signals) {
	signal.Notify(s.detaches, syscall.SIGUSR1)
	// By default these end the process, as if it had crashed.
	signal.Notify(s.ignored, syscall.SIGHUP, syscall.SIGUSR2)
}

//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

func notifyUnix(s *signals) {
	signal.Notify(s.detaches, syscall.SIGUSR1)
	// By default these end the process, as if it had crashed.
	signal.Notify(s.ignored, syscall.SIGHUP, syscall.SIGUSR2)
	// A file over its limit, and a log that nobody reads any more, are errors of the
	// writes, not ends of the master. Not signal.Ignore, which workers would inherit.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGXFSZ, syscall.SIGPIPE)
}

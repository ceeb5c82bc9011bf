//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

func notifyUnix(s *signals) {
	signal.Notify(s.detaches, syscall.SIGUSR1)
	s.ending = append(s.ending, syscall.SIGUSR1)
	// By default these signals would end the process like a crash.
	signal.Notify(s.reloads, syscall.SIGHUP)
	signal.Notify(s.upgrades, syscall.SIGUSR2)
	// A file over its size limit and a log pipe without a reader are write errors and must not end the master.
	// signal.Ignore is not an option, because workers would inherit it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGXFSZ, syscall.SIGPIPE)
}

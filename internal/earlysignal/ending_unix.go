//go:build unix

package earlysignal

import (
	"os"
	"syscall"
)

// ending are the signals that end a master.
var ending = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR1}

// raise sends the signal to this process. That never fails.
func raise(s syscall.Signal) { _ = syscall.Kill(os.Getpid(), s) }

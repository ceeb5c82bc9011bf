//go:build unix

package earlysignal

import (
	"os"
	"syscall"
)

// ending are the signals that end a master.
var ending = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR1}

package earlysignal

import (
	"os"
	"syscall"
)

// ending are the signals that end a master.
var ending = []os.Signal{os.Interrupt}

// raise does nothing: no program replaces another one in its process on this operating system.
func raise(syscall.Signal) {}

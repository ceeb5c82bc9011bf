package daemon

import (
	"os"
	"syscall"
)

// endingSignals returns the signals that stop the master.
func endingSignals() []os.Signal { return []os.Signal{os.Interrupt, syscall.SIGTERM} }

// notifyUnix does nothing: Windows has no signals other than those of the console.
func notifyUnix(*signals) {}

// ignoreOnExec does nothing: a program cannot be replaced in place.
func ignoreOnExec() {}

func signalOf(error) syscall.Signal { return syscall.SIGTERM }

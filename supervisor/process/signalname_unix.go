//go:build unix

package process

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// SignalContinue resumes a process that a signal has stopped.
const SignalContinue = syscall.SIGCONT

// SignalName returns the name of a signal such as "SIGKILL".
func SignalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return "signal " + strconv.Itoa(int(sig))
}

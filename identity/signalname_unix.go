//go:build unix

package identity

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// SignalName returns the name of a signal such as "SIGKILL".
func SignalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return "signal " + strconv.Itoa(int(sig))
}

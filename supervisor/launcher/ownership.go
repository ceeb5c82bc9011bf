package launcher

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/core-tools/hsu-master/supervisor/process"
)

var ErrForeignPort = errors.New("is held by another process")

// CheckPort returns an error if a process other than the worker listens on the port.
func CheckPort(inst Sockets, port int) error {
	owner, err := inst.OwnsPort(port)
	if owner == process.PortForeign {
		return ForeignPort(port)
	}
	if err != nil && owner != process.PortUnknown {
		return fmt.Errorf("tell who listens on port %d: %w", port, err)
	}
	// If the owner cannot be determined, the Ping that follows decides.
	return nil
}

func ForeignPort(port int) error { return fmt.Errorf("port %d %w", port, ErrForeignPort) }

// SuspendedReason is the reason for a process that a signal or a debugger has stopped.
func SuspendedReason(pid int) string {
	continued := "continue it with kill -CONT " + strconv.Itoa(pid)
	if tracer := process.TracerOf(pid); tracer != 0 {
		return fmt.Sprintf("stopped, and traced by process %d: continue it there, or end that and %s",
			tracer, continued)
	}
	return "stopped by a signal: " + continued
}

// HasEnded reports whether the process of the instance has ended.
func HasEnded(inst Process) bool {
	select {
	case <-inst.Done():
		return true
	default:
		return false
	}
}

package identity

import (
	"strconv"
	"syscall"
	"time"
)

// ExitSource is the source of the information about an exit.
type ExitSource string

// The values of ExitSource.
const (
	ExitUnknown ExitSource = ""      // unknown; Code and Signal have no meaning
	ExitWait    ExitSource = "wait"  // by wait: the process was a child of this one
	ExitPidfd   ExitSource = "pidfd" // by PIDFD_INFO_EXIT, after another parent had reaped it (Linux 6.15)
	ExitStat    ExitSource = "stat"  // by field 52 of /proc/PID/stat, before its parent reaped it
)

// Exit describes how a process ended. If Source is ExitUnknown, Code and Signal have no meaning; in particular, code 0
// then does not mean a clean exit.
type Exit struct {
	Code   int            // exit code, 0 to 255, or 32 bits on Windows; 0 if Signal is set
	Signal syscall.Signal // the signal that killed it; 0 if it exited
	Source ExitSource
	At     time.Time // when the master recorded it; zero before
}

// Clean reports whether the process is known to have exited with code 0.
func (e Exit) Clean() bool { return e.Source != ExitUnknown && e.Signal == 0 && e.Code == 0 }

// String describes the exit for people: "exited with code 3", "killed by SIGKILL", "exited with an unknown code".
func (e Exit) String() string {
	switch {
	case e.Source == ExitUnknown:
		return "exited with an unknown code"
	case e.Signal != 0:
		return "killed by " + SignalName(e.Signal)
	}
	return "exited with code " + strconv.Itoa(e.Code)
}

package worker

import (
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Info is a worker as the running master sees it.
type Info struct {
	records.Worker
	// Spec is the unit that the worker has taken last, which a change that is under way, or has stopped early, may not
	// have replaced yet; nil if the master does not own the worker.
	Spec *unit.Spec
	// Adopted reports whether the master found the instance running instead of starting it.
	Adopted bool
	// Ready reports whether the worker is healthy, so that requests may go to it if it has a port.
	Ready bool
	// WaitingFor is the command of its unit that runs now, such as "start.before /srv/migrate", or the probe that a
	// starting worker has to pass and its last answer, such as "Ping: connection refused"; "" if there is neither.
	WaitingFor string
	// Probe is the check that decides about calls: its kind, and its target if that is not simply the worker's port,
	// such as "ping", "process" or "http http://127.0.0.1:8080/health"; "" while the worker is not connected.
	Probe string
	// StatusText is the last STATUS= message of the instance on its notify socket.
	StatusText string
	// Checks are the checks that are made now.
	Checks []CheckInfo
	// RetryAt is when a worker in backoff is started again, or a failed one tried again; zero if it is not.
	RetryAt time.Time
	// StartBy is when a start that has not made a process yet is overdue; zero if there is none.
	StartBy time.Time
	// Unenforced are the limits of the instance that are not enforced, each with the reason and the next step.
	Unenforced []string
	// LogPath is the file that the worker writes to.
	LogPath string
	// Elsewhere tells people where the worker writes its output if that is not LogPath; "" if it is.
	Elsewhere string

	mask func(lines []string) []string // removes the values of the worker's environment; nil if it has none
}

// LastOutput returns the last lines that the worker wrote, nil if there are none or they cannot be read. They contain
// no value of its environment, which a failing program may well print. If they are in no file, it returns one line that
// tells where they are.
func (i Info) LastOutput() []string {
	switch {
	case i.Elsewhere != "":
		return []string{"(" + i.Elsewhere + ")"}
	case i.LogPath == "":
		return nil
	}
	lines := logs.Tail(i.LogPath)
	if i.mask != nil {
		lines = i.mask(lines)
	}
	return lines
}

// NoLog returns why the output of the worker is not in LogPath; "" if it is.
func (i Info) NoLog() string {
	switch {
	case i.Unmanaged():
		return "it is unmanaged: the master has not started it and does not know its output"
	case i.Elsewhere != "":
		return i.Elsewhere
	}
	return ""
}

// Recorded returns the worker of a record that no master has opened. path is its log.
func Recorded(rec records.Worker, path string) Info {
	i := Info{Worker: rec, Ready: rec.Status == records.StatusRunning, LogPath: path}
	if rec.EnvironmentMAC != "" { // its values are not known here
		i.Elsewhere = withheld(path)
	}
	return i
}

// withheld tells people where output is that may contain values which cannot be recognised.
func withheld(path string) string {
	return "its output may have values of its environment: see " + path
}

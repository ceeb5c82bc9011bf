package unit

import (
	"path/filepath"

	"github.com/core-tools/hsu-master/internal/placeholder"
	"github.com/core-tools/hsu-master/supervisor/probe"
)

// HostError is the error of a unit for which something is missing on this host.
type HostError struct {
	Key string // of the unit in a configuration file, such as command, working_dir or stop.after
	Err error
}

func (o HostError) Error() string {
	switch o.Key {
	case keyDir:
		return "working folder: " + o.Err.Error()
	case keyCommand:
		return "worker path: " + o.Err.Error()
	}
	return o.Key + ": " + o.Err.Error()
}

func (o HostError) Unwrap() error { return o.Err }

// Values of [HostError.Key]. The others are those of [Hook.Key].
const (
	keyCommand   = "command"
	keyDir       = "working_dir"
	keyReadiness = "readiness.command"
	keyLiveness  = "liveness.command"
)

// StartErrors returns the reasons why workers of the unit cannot be started on this host: the executable, the folder or
// the program of [BeforeStart] is missing. They may go away: each start looks again. What does not answer within a
// second is not known to be missing, nor is a program that each worker has its own of.
func (u *Spec) StartErrors() []HostError {
	var found []HostError
	if err := u.lookAtProgram(u.Path, namePath); err != nil {
		found = append(found, HostError{keyCommand, err})
	}
	if dir := u.Dir; dir != "" {
		if err := hostLooks.check(lookAt{dir: dir}, func() error { return statDir(dir) }); err != nil {
			found = append(found, HostError{keyDir, err})
		}
	}
	first, _ := u.programOf(u.Command(BeforeStart), 0)
	if second, _ := u.programOf(u.Command(BeforeStart), 1); first != second {
		return found
	}
	return append(found, u.hookErrors(BeforeStart)...)
}

// CommandErrors returns the reasons why the commands of [AtStop], of [AfterEnd] and of checks cannot be run on this
// host. Workers start all the same, so these errors, unlike [Spec.StartErrors], do not keep a worker from being
// replaced. It waits for the file system as that does.
func (u *Spec) CommandErrors() []HostError {
	found := u.hookErrors(AtStop, AfterEnd)
	found = append(found, u.checkErrors(keyReadiness, u.Health.Readiness)...)
	if !u.OneCheck() {
		found = append(found, u.checkErrors(keyLiveness, u.Health.Liveness)...)
	}
	return found
}

// hookErrors returns the errors of the programs of hooks. They are looked up as [Spec.LaunchHook] does.
func (u *Spec) hookErrors(hooks ...Hook) []HostError {
	var found []HostError
	for _, h := range hooks {
		name, known := u.programOf(u.Command(h), 0)
		if !known {
			continue
		}
		if err := u.lookAtProgram(name, nameProgram); err != nil {
			found = append(found, HostError{h.Key(), err})
		}
	}
	return found
}

// checkErrors returns the error of the program of a check. A relative path starts at the working folder.
func (u *Spec) checkErrors(key string, s probe.Spec) []HostError {
	name, known := u.programOf(s.Command, 0)
	if s.Type != probe.TypeExec || !known {
		return nil
	}
	if filepath.Base(name) != name && !filepath.IsAbs(name) {
		name = filepath.Join(u.Dir, name)
	}
	if err := u.lookAtProgram(name, nameProgram); err != nil {
		return []HostError{{key, err}}
	}
	return nil
}

// programOf returns the program of a command for the worker of this index. It is not known if it depends on the port.
func (u *Spec) programOf(command []string, worker int) (name string, known bool) {
	if len(command) == 0 {
		return "", false
	}
	name, err := placeholder.Expand(command[0], u.Placeholders(u.WorkerID(worker), 0))
	return name, err == nil && name != ""
}

// lookAtProgram returns the error of [lookUpProgram], or nil if it is not known in time.
func (u *Spec) lookAtProgram(name, next string) error {
	as := u.Attributes
	return hostLooks.check(lookAt{name: name, next: next, user: as.User, group: as.Group}, func() error {
		_, _, err := lookUpProgram(name, next, as)
		return err
	})
}

package unit

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/internal/placeholder"
)

// Hook is a moment in the life of a worker at which a command of its unit runs.
type Hook string

// The values of Hook.
const (
	BeforeStart Hook = "before" // before each start
	AtStop      Hook = "stop"   // while the worker is being stopped, before the signal
	AfterEnd    Hook = "after"  // after the end of the worker and its family
)

// Key returns the key of the command in a configuration file.
func (h Hook) Key() string {
	switch h {
	case BeforeStart:
		return "start.before"
	case AtStop:
		return "stop.command"
	case AfterEnd:
		return "stop.after"
	}
	return string(h)
}

// ID returns the id that the processes of the worker's command carry instead of that of a worker. See [HookOf].
func (h Hook) ID(worker string) string { return worker + "/" + string(h) }

// HookOf returns the worker and the hook of an id that [Hook.ID] has made.
func HookOf(id string) (worker string, h Hook, ok bool) {
	worker, name, _ := strings.Cut(id, "/")
	switch h = Hook(name); h {
	case BeforeStart, AtStop, AfterEnd:
		return worker, h, true
	}
	return "", "", false
}

// Command returns the program of a hook and its arguments, nil if the unit has none.
func (u *Spec) Command(h Hook) []string {
	switch h {
	case BeforeStart:
		return u.Start.Before
	case AtStop:
		return u.Stop.Command
	case AfterEnd:
		return u.Stop.After
	}
	return nil
}

// HasHooks reports whether the unit has a command of a hook.
func (u *Spec) HasHooks() bool { return len(u.Start.Before)+len(u.Stop.Command)+len(u.Stop.After) > 0 }

// StopTime returns the time in which a worker is stopped: its grace, and as much for its [AfterEnd].
func (u *Spec) StopTime() time.Duration {
	if len(u.Stop.After) > 0 {
		return 2 * u.Stop.Grace
	}
	return u.Stop.Grace
}

// Program is a command that is ready to be started.
type Program struct {
	Path string
	Args []string
	Env  []string
}

// nameProgram is the next step of an operator if the program of a command is missing.
const nameProgram = "name an executable"

// LaunchHook returns the program of a hook, its arguments and its environment variables, with the placeholders of
// [Spec.Launch] replaced. A program without a slash is looked up in PATH.
func (u *Spec) LaunchHook(h Hook, worker string, port int) (p Program, err error) {
	words, err := u.expandHook(h, worker, port)
	if err != nil {
		return p, err
	}
	if p.Path, _, err = lookUpProgram(words[0], nameProgram, u.Attributes); err != nil {
		return p, err
	}
	if p.Path, err = filepath.Abs(p.Path); err != nil { // the command may run in another folder
		return p, fmt.Errorf("find the program: %w", err)
	}
	p.Args = words[1:]
	p.Env, err = u.environ(worker, port)
	return p, err
}

// expandHook returns the command of a hook with its placeholders replaced.
func (u *Spec) expandHook(h Hook, worker string, port int) ([]string, error) {
	command := u.Command(h)
	words := make([]string, len(command))
	for i, word := range command {
		expanded, err := placeholder.Expand(word, u.Placeholders(worker, port))
		if err != nil {
			return nil, fmt.Errorf("argument %q: %w", word, err)
		}
		words[i] = expanded
	}
	if len(words) == 0 || words[0] == "" {
		return nil, errors.New("the program must not be empty")
	}
	return words, nil
}

// checkHooks returns the faults of the commands of hooks.
func (u *Spec) checkHooks() (errs []error) {
	port := 1
	if u.Port == NoPort || u.Port == AnnouncedPort { // a worker may be stopped before its own port is known
		port = 0
	}
	for _, h := range []Hook{BeforeStart, AtStop, AfterEnd} {
		if len(u.Command(h)) == 0 {
			continue
		}
		if _, err := u.expandHook(h, u.WorkerID(0), port); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", h.Key(), err))
		}
	}
	return errs
}

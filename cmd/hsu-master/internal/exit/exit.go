// Package exit has the errors by which a command of hsu-master ends: their exit codes, and hints on what to do next.
package exit

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/store"
)

// The exit codes. They are documented in hsu-master(1), and scripts depend on them. Code returns that of an error.
const (
	Done       = 0
	Failed     = 1
	WrongUsage = 2
	NoMaster   = 3
	Locked     = 4
	Damaged    = 5
)

// ErrNoMaster is returned if no master answers. For commands that can read the state files themselves it means
// that no master holds the state.
var ErrNoMaster = errors.New("no master is running")

// ErrHeld is returned if a master holds the state but does not answer.
var ErrHeld = errors.New("a master holds the state")

// ErrUnsound is returned if a check has found problems. They have been printed.
var ErrUnsound = errors.New("the state is damaged or contradicts itself")

// usageError marks an error as a wrong command line or configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Usage marks an error as a wrong command line or configuration.
func Usage(err error) error { return usageError{err} }

// Usagef is [fmt.Errorf] for a wrong command line or configuration.
func Usagef(format string, args ...any) error { return Usage(fmt.Errorf(format, args...)) }

// hintedError adds to an error a hint on what to do next.
type hintedError struct {
	error
	hint string
}

func (e *hintedError) Unwrap() error { return e.error }

// Hint adds to an error a hint on what to do next.
func Hint(err error, format string, args ...any) error {
	return &hintedError{error: err, hint: fmt.Sprintf(format, args...)}
}

// NextStep returns the hint of an error, or one for an error whose text has none, or "".
func NextStep(err error) string {
	if hinted, ok := errors.AsType[*hintedError](err); ok {
		return hinted.hint
	}
	if damaged, ok := errors.AsType[*store.DamagedError](err); ok && !damaged.Backup {
		return `"hsu-master state check" describes the damage; "hsu-master run --on-damage recover" keeps the file ` +
			`aside and continues with the newest good backup and the running workers`
	}
	if errors.Is(err, syscall.EMFILE) {
		return "raise the limit on open files: ulimit -n, or LimitNOFILE= of the service"
	}
	return ""
}

// Code returns the exit code of a command that ends with the error.
func Code(err error) int {
	if _, ok := errors.AsType[usageError](err); ok {
		return WrongUsage
	}
	if _, ok := errors.AsType[cli.ExitCoder](err); ok { // help was requested for an unknown command
		return WrongUsage
	}
	if _, ok := errors.AsType[*store.LockedError](err); ok || errors.Is(err, ErrHeld) {
		return Locked
	}
	if _, ok := errors.AsType[*store.DamagedError](err); ok || errors.Is(err, ErrUnsound) {
		return Damaged
	}
	if errors.Is(err, ErrNoMaster) {
		return NoMaster
	}
	return Failed
}

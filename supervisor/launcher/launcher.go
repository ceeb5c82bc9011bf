// Package launcher starts the processes of workers and finds recorded ones again: the operating system as package
// supervisor needs it, for tests to replace. Its implementation is package process.
package launcher

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Inspector inspects processes without changing them.
type Inspector interface {
	// Attach proves that the recorded instance lives and opens it. Its errors include [process.ErrGone] and
	// [process.ErrUnverifiable].
	Attach(worker string, rec records.Instance) (Instance, error)
	// AttachFound opens an unrecorded process whose environment names rec's token.
	AttachFound(worker string, pid int, rec records.Instance) (Instance, identity.Process, error)
	// Identify returns the identity of the process that has the PID now; [process.ErrGone] if there is none.
	Identify(pid int) (identity.Process, error)
	// Holds reports whether the process has the instance's lease.
	Holds(worker string, rec records.Instance, pid int) bool
	// Left returns the state of the lease of an instance that is gone, and the remaining members of its family.
	// seen reports whether the scan found its token.
	Left(
		ctx context.Context, worker string, rec records.Instance, seen bool,
	) (lease string, members []process.Holder, err error)
	// Owner returns the owner of the listeners on a port, as seen from the family of an instance that is gone.
	Owner(worker string, rec records.Instance, port int) (process.Ownership, error)
}

// The states of a lease.
const (
	LeaseHeld    = "held"
	LeaseFree    = "free"
	leaseUnknown = "unknown"
)

// ErrOwnFault means that the worker was not started because the master lacked a resource. It costs the worker no
// budget: service resumes when the resource is available again.
var ErrOwnFault = errors.New("the master lacks what a start needs")

// KillWait is the longest wait for the kernel to end a process after SIGKILL.
const KillWait = 5 * time.Second

// Launcher starts processes and finds recorded ones again.
type Launcher interface {
	Inspector
	// Lease creates the lease file that an instance of the worker will hold, or a run of a hook with its own id.
	Lease(worker string) (*process.Lease, error)
	// Start forks the instance that rec describes. Its limits are in force when its program runs; if some cannot be
	// enforced and are required, it does not run. output is the open file of a worker that writes to one; if it is nil,
	// Start opens the output. The caller closes the lease and the output.
	Start(
		u *unit.Spec, worker string, rec records.Instance, lease *process.Lease, output *os.File,
	) (Instance, error)
	// Run runs a command until it has ended or ctx ends. The command has an id and a token of its own, and may have a
	// lease, by which the next master finds it.
	Run(ctx context.Context, c Command, id, token string) (oneshot.Ran, error)
	// Measure returns the usage of the families of the subjects, in their order. A family that cannot be seen uses
	// nothing.
	Measure(ctx context.Context, subjects []Subject) ([]process.Resources, error)
	// Look returns the processes of the instance, and where they listen.
	Look(ctx context.Context, s Subject) (Look, error)
	// Sweep kills the remaining descendants of an instance that is gone and returns those that are still alive.
	Sweep(ctx context.Context, worker string, rec records.Instance) ([]process.Holder, error)
}

// Subject is a process with its family that is measured: an instance of a worker, or a process that something else has
// started, which has no token and no lease.
type Subject struct {
	Worker   string
	Instance records.Instance
}

// Command is a program that runs besides a worker.
type Command struct {
	Path string
	Args []string
	Env  []string // in addition to that of the master
	Dir  string
	// Attributes are those of the worker: a check of it has no rights that it does not have.
	Attributes process.Attributes
	// Input is the standard input of the command; nil means /dev/null.
	Input []byte
	// Log is the worker whose output that of the command is added to, and LogTo where that goes. If Log is empty, the
	// output is returned.
	Log   string
	LogTo logs.Target
	// Lease is inherited by the command, and closed here when the command runs; nil if it has none.
	Lease *process.Lease
	// Patience and Hurry are those of [oneshot.Spec].
	Patience time.Duration
	Hurry    <-chan struct{}
}

// Keeper keeps descriptors beyond the life of this program: handles on processes, so that the next master learns the
// exit code of a worker that ended while no master ran, and notify sockets of starting workers. systemd's file
// descriptor store is one.
type Keeper interface {
	Keep(name string, file *os.File) error
	Drop(name string) error
	// Kept returns the file that an earlier master has given to Keep, nil if there is none. A handle has the token of
	// the instance as its name.
	Kept(name string) *os.File
}

// NoKeeper is a Keeper that keeps nothing.
type NoKeeper struct{}

func (NoKeeper) Keep(string, *os.File) error { return nil }
func (NoKeeper) Drop(string) error           { return nil }
func (NoKeeper) Kept(string) *os.File        { return nil }

package launcher

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/supervisor/cgroup"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// Instance is one process and its family: all its descendants.
type Instance interface {
	Process
	Family
	Output
	Sockets
}

// Process is the process of an instance.
type Process interface {
	Identity() identity.Process
	// Done returns a channel that is closed when the process has ended.
	Done() <-chan struct{}
	// Exit returns how the process ended; valid after Done.
	Exit() identity.Exit
	// Suspended reports whether a signal has stopped the process.
	Suspended() bool
	// Signal sends the signal to the process alone. The error includes [process.ErrGone] if it has ended.
	Signal(sig syscall.Signal) error
	// Terminate sends the signal, and SIGCONT, to the process group.
	Terminate(sig syscall.Signal) error
	// Handle returns a handle on the process for a [Keeper].
	Handle() (*os.File, error)
	// Close releases the handle; the process goes on.
	Close() error
}

// Family is an instance with all its descendants.
type Family interface {
	// TerminateRest sends SIGTERM to descendants that have left the group.
	TerminateRest(ctx context.Context) error
	// Survived reports, at little cost, whether descendants that have kept the lease are alive.
	Survived() bool
	// Outlived reports whether other processes of the family are alive. It looks at all processes of the machine.
	Outlived(ctx context.Context) bool
	// Kill kills the process and its family and returns the processes that are still alive.
	Kill(ctx context.Context) ([]process.Holder, error)
	// CPUTime returns the use of the processor by the process and its family.
	CPUTime(ctx context.Context) (process.Usage, error)
	// Limit makes these the limits of the process and its family, which Start has done already, and returns those that
	// are not enforced: see [cgroup.Apply].
	Limit(l cgroup.Limits) (unenforced []string)
	// OutOfMemory describes the processes of the family that the kernel has killed because memory ran out, "" if there
	// are none or that is not known. It is valid until Kill.
	OutOfMemory() string
	// Includes reports, at little cost, whether the process with the PID belongs to the family now: see
	// [process.Family.Includes].
	Includes(pid int) bool
}

// Output is where an instance writes.
type Output interface {
	// AppendsOnly reports whether every descriptor with which the process or its family may write to a file appends.
	AppendsOnly(ctx context.Context, path string) (bool, error)
	// OutputLost reports, at little cost, whether the process writes its output to a file that was at path, and that
	// has been deleted or moved since.
	OutputLost(path string) bool
	// Fallback returns why the output goes to the file at path, which is that of the worker, if it was to go elsewhere.
	// It is nil if the output does not go there.
	Fallback(path string) error
}

// Sockets are the TCP sockets of an instance.
type Sockets interface {
	// OwnsPort reports whether the process or its family owns the listeners on the port.
	OwnsPort(port int) (process.Ownership, error)
	// OwnsPeer reports whether the process or its family owns the other end of a TCP connection of the master.
	OwnsPeer(ctx context.Context, local, remote netip.AddrPort) (process.Ownership, error)
	// ListensOn returns the TCP ports on which the process and its family listen, sorted.
	ListensOn(ctx context.Context) ([]int, error)
}

// osInstance is the [Instance] of the operating system.
type osInstance struct {
	osProcess
	osFamily
	osOutput
}

type osProcess struct{ *process.Process }

func (p osProcess) Suspended() bool { return p.Stopped() }

func (p osProcess) Terminate(sig syscall.Signal) error {
	// SIGCONT follows because a stopped process handles the signal only when it continues.
	err := p.SignalGroup(sig)
	return errors.Join(err, p.SignalGroup(process.SignalContinue))
}

// osFamily finds its members, their sockets and their descriptors as [process.Family] does.
type osFamily struct {
	process.Family
	noCgroup string // the reason why it has no cgroup; "" if it has one
}

func (f osFamily) TerminateRest(ctx context.Context) error { return f.Terminate(ctx) }

func (f osFamily) Survived() bool {
	if f.LeasePath == "" {
		return false
	}
	held, err := process.LeaseHeld(f.LeasePath, f.Lease)
	return held && err == nil
}

func (f osFamily) Outlived(ctx context.Context) bool {
	members, err := f.Members(ctx)
	return err == nil && slices.ContainsFunc(members, func(h process.Holder) bool { return h.PID != f.Leader })
}

func (f osFamily) Kill(ctx context.Context) ([]process.Holder, error) {
	return killFamily(ctx, f.Family)
}

type osOutput struct {
	process  *process.Process
	fallback error // of a process that was started here
}

func (o osOutput) OutputLost(path string) bool {
	lost := process.OutputLost(o.process.PID(), path)
	select {
	case <-o.process.Done(): // the PID may be another process's
		return false
	default:
		return lost
	}
}

func (o osOutput) Fallback(path string) error {
	if o.fallback == nil && process.WritesTo(o.process.PID(), path) {
		return errAttached
	}
	return o.fallback
}

// errAttached is the reason of a process whose start is not known any more.
var errAttached = errors.New("it was started so")

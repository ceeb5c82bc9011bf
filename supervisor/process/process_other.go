//go:build !linux

package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/identity"
)

// unsupported returns the error for a function that this system cannot provide, or for which no implementation
// exists.
func unsupported(what string) error {
	return fmt.Errorf("%s on %s: %w", what, runtime.GOOS, errors.ErrUnsupported)
}

// Process is an open handle on one process.
type Process struct{}

// Start starts a process in a session of its own.
func Start(Spec) (*Process, error) {
	return nil, unsupported("start a process that outlives its master")
}

// InputOf returns a file with the content for [Spec.Input].
func InputOf([]byte) (*os.File, error) { return nil, unsupported("run a command with an input") }

// InheritsOrphans reports whether this process becomes the parent of orphans.
func InheritsOrphans() bool { return false }

// ReapOrphans reaps orphans until ctx ends.
func ReapOrphans(ctx context.Context) { <-ctx.Done() }

// Open opens the process that id names and proves that it is the one.
func Open(identity.Process, string) (*Process, error) { return nil, unsupported("open a process") }

// Search looks for a process of another PID namespace.
func Search(context.Context, identity.Process, string) (*Process, error) {
	return nil, unsupported("search for a process")
}

// OpenPID opens the process that has the PID now.
func OpenPID(int) (*Process, error) { return nil, unsupported("open a process") }

// Identify returns the identity of the process that has the PID now.
func Identify(int) (identity.Process, error) {
	return identity.Process{}, unsupported("identify a process")
}

// Verify checks that the process's environment names token.
func (p *Process) Verify(string) error { return unsupported("verify a process") }

// Identity returns the evidence.
func (p *Process) Identity() identity.Process { return identity.Process{} }

// PID returns the PID of the process.
func (p *Process) PID() int { return 0 }

// Done is closed when the process has died.
func (p *Process) Done() <-chan struct{} { return nil }

// Exit returns how the process ended.
func (p *Process) Exit() identity.Exit { return identity.Exit{} }

// Signal sends sig to the process.
func (p *Process) Signal(syscall.Signal) error { return unsupported("signal a process") }

// SignalGroup sends sig to the process group.
func (p *Process) SignalGroup(syscall.Signal) error { return unsupported("signal a process group") }

// Stopped reports whether the process is stopped.
func (p *Process) Stopped() bool { return false }

// Matches returns nil if the process matches the pattern.
func (p *Process) Matches(Pattern) error { return unsupported("compare a process with a pattern") }

// Close releases the handle.
func (p *Process) Close() error { return nil }

// Handle returns a pidfd for a keeper that outlives this program.
func (p *Process) Handle() (*os.File, error) { return nil, unsupported("keep a process's handle") }

// ExitOf returns how the process behind a kept handle ended.
func ExitOf(*os.File) (identity.Exit, bool) { return identity.Exit{}, false }

// Scan finds every process that carries a worker's token.
func Scan(context.Context) ([]Holder, error) { return nil, unsupported("scan for processes") }

// Lease is an open, locked lease file.
type Lease struct{}

// CreateLease makes a new lease.
func CreateLease(string) (*Lease, error) { return nil, unsupported("create a lease") }

// ID returns the lease file's identity.
func (l *Lease) ID() identity.FileID { return identity.FileID{} }

// Path returns the path at which the lease was created.
func (l *Lease) Path() string { return "" }

// Unlock makes the lease free.
func (l *Lease) Unlock() error { return nil }

// Lock makes the lease held.
func (l *Lease) Lock() error { return nil }

// Close closes this process's descriptor of the lease.
func (l *Lease) Close() error { return nil }

// HoldsLeaseFile returns false: no process holds a lease.
func HoldsLeaseFile(int, string) bool { return false }

// LeaseID returns the identity of a lease.
func LeaseID(string) (identity.FileID, error) {
	return identity.FileID{}, unsupported("look for a lease")
}

// LeaseHeld reports whether any process holds the lease.
func LeaseHeld(string, identity.FileID) (bool, error) { return false, unsupported("ask for a lease") }

// HoldsLease reports whether a process holds the lease.
func HoldsLease(int, string, identity.FileID) bool { return false }

// Members returns the living members.
func (f Family) Members(context.Context) ([]Holder, error) {
	return nil, unsupported("find a process's descendants")
}

// Includes reports whether a process belongs to the family.
func (f Family) Includes(int) bool { return false }

// AppendsOnly reports whether the members can only append to a file.
func (f Family) AppendsOnly(context.Context, string) (bool, error) {
	return false, unsupported("read a process's descriptors")
}

// OutputLost reports whether the process writes its output to a deleted file. It is not known here.
func OutputLost(int, string) bool { return false }

// WritesTo reports whether the process writes its output to the file. It is not known here.
func WritesTo(int, string) bool { return false }

// Terminate asks the members to terminate.
func (f Family) Terminate(context.Context) error { return unsupported("end a process's descendants") }

// Kill kills every member.
func (f Family) Kill(context.Context) ([]Holder, error) {
	return nil, unsupported("kill a process's descendants")
}

// CPUTime returns the use of the processor by the members.
func (f Family) CPUTime(context.Context) (Usage, error) {
	return Usage{}, unsupported("read a process's processor time")
}

// Measure returns what each family uses.
func Measure(context.Context, []Family) ([]Resources, error) {
	return nil, unsupported("read what processes use")
}

// OwnsPort reports whose listeners a TCP port has.
func (f Family) OwnsPort(int) (Ownership, error) {
	return PortUnknown, unsupported("find a port's owner")
}

// OwnsPeer reports the owner of the other end of a TCP connection.
func (f Family) OwnsPeer(context.Context, netip.AddrPort, netip.AddrPort) (Ownership, error) {
	return PortUnknown, unsupported("find a connection's owner")
}

// ListensOn returns the TCP ports on which members listen.
func (f Family) ListensOn(context.Context) ([]int, error) {
	return nil, unsupported("find a family's listeners")
}

// Connector is the process that has connected to a unix socket of this process.
type Connector struct {
	PID int
	UID uint32
}

// ConnectorOf returns the process at the other end of a connection.
func ConnectorOf(*net.UnixConn) (*Connector, error) {
	return nil, unsupported("find the process that connected")
}

// Open opens the process.
func (c *Connector) Open() (*Process, error) {
	return nil, unsupported("open the process that connected")
}

// Ancestors returns the PIDs of the parents of a process.
func Ancestors(int) []int { return nil }

// PortHolder never finds a process.
func PortHolder(int) (pid int, name string, found bool) { return 0, "", false }

// PortHidden reports whether a TCP port has a listener that cannot be seen from here.
func PortHidden(context.Context, int) (bool, error) { return false, unsupported("find a port's owner") }

// BootID returns the identifier of this boot.
func BootID() (string, error) { return "", unsupported("read the boot id") }

// PIDNamespace returns 0: there are no PID namespaces.
func PIDNamespace() uint64 { return 0 }

var started = time.Now()

// BootTime returns the time since boot.
func BootTime() time.Duration { return time.Since(started) }

// ShedInherited does nothing.
func ShedInherited() error { return nil }

// PauseProcess is a process that keeps a cgroup populated.
type PauseProcess struct{}

// StartPauseProcess starts a process that does nothing.
func StartPauseProcess() (*PauseProcess, error) { return nil, unsupported("start a process") }

// PID returns 0.
func (p *PauseProcess) PID() int { return 0 }

// MoveTo moves the process to a cgroup.
func (p *PauseProcess) MoveTo(string) error { return unsupported("move a process") }

// Alive reports whether the process has not ended.
func (p *PauseProcess) Alive() bool { return false }

// Close ends the process.
func (p *PauseProcess) Close() error { return nil }

// Discover finds no process.
func Discover(_ context.Context, _ Own, queries []Query) []Discovery {
	found := make([]Discovery, len(queries))
	for i := range found {
		found[i].Err = unsupported("search for processes")
	}
	return found
}

// TracerOf returns 0: it is known on Linux only.
func TracerOf(int) int { return 0 }

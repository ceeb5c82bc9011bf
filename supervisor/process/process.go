package process

import (
	"errors"
	"os"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
)

var (
	// ErrGone is returned if the requested process no longer exists: it ended, the machine was rebooted, or its PID
	// now belongs to another process or thread.
	ErrGone = errors.New("the process is gone")

	// ErrUnverifiable is returned if it cannot be decided whether the process is the requested one. Treat it as
	// neither alive nor dead: keep the record, ask again later, and never start a replacement.
	ErrUnverifiable = errors.New("the process cannot be verified")

	// ErrElsewhere is returned together with ErrUnverifiable if the known PID belongs to another PID namespace, for
	// instance that of a container. See Search.
	ErrElsewhere = errors.New("the process ran in another pid namespace")

	// ErrLeaseUnknown is returned if the lease file is missing or was replaced, so that it is no evidence about the
	// requested lease.
	ErrLeaseUnknown = errors.New("the lease is unknown")

	// ErrLeaseHeld is returned if the lease is held by a process that cannot be found or is not known to be a member.
	// A descendant may still live unseen: start no replacement, and report it.
	ErrLeaseHeld = errors.New("the lease is held by a process that cannot be found")
)

// Spec describes the process that Start starts.
type Spec struct {
	Path   string          // of the executable; PATH is not searched; relative to Dir
	Args   []string        // after argument 0, which is Path
	Env    []string        // the complete environment, "name=value"
	Dir    string          // working folder; empty means the caller's
	Input  *os.File        // stdin; nil means /dev/null
	Output *os.File        // stdout and stderr; nil means /dev/null
	Errors *os.File        // stderr in place of Output, if it is not nil
	Lease  *Lease          // inherited at descriptor 3; nil means none
	Leash  *os.File        // inherited there if there is no lease: a file that all descendants hold
	Cgroup string          // cgroup v2 folder to start in; empty means the caller's
	Exe    identity.FileID // the file that the process must run, from executable.Check; zero means any
	Rights Rights          // from Attributes.Resolve; zero means those of the caller

	// Confine sets the limits of Cgroup. It is called right before the program runs there; if it fails, the program
	// does not run. It may be nil.
	Confine func() error
}

func (s Spec) confine() error {
	if s.Confine == nil {
		return nil
	}
	return s.Confine()
}

// StartTicks returns the Holder.StartTicks of a process that is started at a reading of [BootTime].
func StartTicks(at time.Duration) uint64 { return uint64(at / procfs.Tick) } //nolint:gosec // it is not negative

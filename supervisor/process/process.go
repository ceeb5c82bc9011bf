package process

import (
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
)

// Environment variables that every instance and its descendants carry. A master uses these names to find the
// workers of an earlier master.
const (
	EnvMasterID    = "HSU_MASTER_ID"    // UUID of the master that started the instance
	EnvStateDir    = "HSU_STATE_DIR"    // the master's state folder as identity.FileID.String, "device:inode"
	EnvWorkerID    = "HSU_WORKER_ID"    // the worker whose slot the instance fills
	EnvWorkerToken = "HSU_WORKER_TOKEN" // the instance's own random token
	EnvWorkerPort  = "HSU_WORKER_PORT"  // the port assigned to the instance
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

	// ErrSurvived is returned by Run if not all of a command could be killed.
	ErrSurvived = errors.New("processes of a command survive")
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
	Cgroup string          // cgroup v2 folder to start in; empty means the caller's
	Exe    identity.FileID // the file that the process must run, from executable.Check; zero means any
	Rights Rights          // from Attributes.Resolve; zero means those of the caller

	// Confine sets the limits of Cgroup. It is called right before the program runs there; if it fails, the program
	// does not run. It may be nil.
	Confine func() error

	leash *os.File // inherited at descriptor 3 if there is no lease; see Run

	// Patience and Hurry are for Run: the time between SIGTERM and SIGKILL, and a channel that is closed to end it.
	Patience time.Duration
	Hurry    <-chan struct{}
}

func (s Spec) confine() error {
	if s.Confine == nil {
		return nil
	}
	return s.Confine()
}

// Holder is a process that carries a worker's token, or belongs to a family. The process itself controls the
// values from its environment: compare them, but never print, open or run them unchecked.
type Holder struct {
	PID, PPID, PGID, SID int
	UID                  uint32 // effective uid
	State                byte   // as in /proc/PID/stat; that of a living thread if the first one has ended
	StartTicks           uint64 // clock ticks after boot
	MasterID             string
	StateDir             string
	WorkerID             string
	Token                string
	Port                 int // 0 if the environment has none
}

// StartTicks returns the Holder.StartTicks of a process that is started at a reading of [BootTime].
func StartTicks(at time.Duration) uint64 { return uint64(at / procfs.Tick) } //nolint:gosec // it is not negative

// Ownership describes the owner of the listeners of a port.
type Ownership int

const (
	PortUnknown Ownership = iota // the owner of a listener could not be determined
	PortFree                     // no listener
	PortOurs                     // every listener belongs to the family
	PortForeign                  // at least one listener does not belong to the family
)

// String returns "unknown", "free", "ours" or "foreign".
func (o Ownership) String() string {
	switch o {
	case PortUnknown:
		return "unknown"
	case PortFree:
		return "free"
	case PortOurs:
		return "ours"
	case PortForeign:
		return "foreign"
	}
	return "ownership-" + strconv.Itoa(int(o))
}

// Usage is the use of the processor by a family.
type Usage struct {
	// CPU is the processor time used so far, by members that have ended as far as their parents know. It can shrink:
	// the time of a member that has ended counts again when its parent has reaped it.
	CPU time.Duration
	// Blocked reports whether a thread of a member waits for a disk or for another device (state D).
	Blocked bool
}

// Resources is the use of resources by a family at one moment, as far as it can be read.
type Resources struct {
	Processes int // 0: no member was found, and nothing is known
	Threads   int
	// Resident is the sum of the resident memory of the members, in bytes. A page that several of them share, such as
	// one of a library or one that a child has not written to since the fork, counts for each of them.
	Resident int64
	// CPU is like that of [Usage].
	CPU time.Duration
	// Files is the number of open descriptors of the members; -1 if those of a member cannot be read.
	Files int
}

// Family is an instance with all of its descendants. A process belongs to it if it carries the token, lives in the
// cgroup, holds the lease's lock and has the session or the user of the instance, or descends from a member. This
// process and its ancestors never belong to it.
type Family struct {
	Token string // of the instance

	// Leader is the instance's PID, or 0 if it is dead or unknown. A bare PID proves nothing: it is a hint where to
	// look first.
	Leader int
	// Main is the opened instance, or nil if it is dead or unknown. It makes the leader a proven member even if the
	// leader cleared its environment and closed the lease.
	Main *Process

	LeasePath string          // of the lease file; empty means none
	Lease     identity.FileID // of the instance's own lease
	// A holder of the lease that matches none of these is a foreign process that was given the descriptor.
	Session    int    // of the instance, which is its recorded PID; 0 means unknown
	UID        uint32 // of the user that runs the instance
	StartTicks uint64 // of the instance; 0 means unknown
	Cgroup     string // folder of the instance's own cgroup; empty means none
}

package process

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// Environment that every instance and its descendants carry. The names are the
// contract between a master and the next one that finds its workers.
const (
	EnvMasterID    = "HSU_MASTER_ID"    // UUID of the master that started the instance
	EnvStateDir    = "HSU_STATE_DIR"    // its state folder as FileID.String, "device:inode"
	EnvWorkerID    = "HSU_WORKER_ID"    // the worker whose slot the instance fills
	EnvWorkerToken = "HSU_WORKER_TOKEN" // the instance's own random token
	EnvWorkerPort  = "HSU_WORKER_PORT"  // the port it was told to listen on
)

var (
	// ErrGone means that the process asked for is no more: it ended, the machine
	// was booted since, or its number belongs to another process or thread now.
	ErrGone = errors.New("the process is gone")

	// ErrUnverifiable means that it cannot be told whether the process is the one
	// asked for. It is neither alive nor dead: hold, ask again, never start a twin.
	ErrUnverifiable = errors.New("the process cannot be verified")

	// ErrElsewhere goes with ErrUnverifiable: the number that is known of the process
	// counts in another PID namespace, that of a container, say. See Search.
	ErrElsewhere = errors.New("the process ran in another pid namespace")

	// ErrLeaseUnknown means that the lease file is missing or was replaced, so that
	// it says nothing about who holds the lease asked for.
	ErrLeaseUnknown = errors.New("the lease is unknown")

	// ErrLeaseHeld means that somebody holds the lease and cannot be found: a
	// descendant may live on unseen, so hold and report.
	ErrLeaseHeld = errors.New("the lease is held by a process that cannot be found")
)

// Proof says what proves that a process is the recorded one.
type Proof int

const (
	// ProofPidfdInode is the inode of the process's pidfd: unique per process and
	// boot, the same for every observer and across execve (Linux 6.9, PID_FS_MAGIC).
	ProofPidfdInode Proof = iota
	// ProofStartTimeToken is the start time together with the token in the
	// environment: start time alone repeats when a PID is reused within one tick.
	ProofStartTimeToken
)

// String returns the name that records and dumps use.
func (p Proof) String() string {
	switch p {
	case ProofPidfdInode:
		return "pidfd-inode"
	case ProofStartTimeToken:
		return "start-time-token"
	}
	return "proof-" + strconv.Itoa(int(p))
}

// Identity is what a record keeps of a process to recognise it later.
type Identity struct {
	BootID       string // of the boot it ran in; another boot means it is gone
	PID          int    // as seen in PIDNamespace
	Inode        uint64 // of its pidfd; 0 unless Proof is ProofPidfdInode
	StartTicks   uint64 // clock ticks after boot, field 22 of /proc/PID/stat
	PIDNamespace uint64 // inode of the namespace that PID counts in
	Proof        Proof  // which of the above is the evidence
}

// FileID identifies a file or folder on this machine: by device and inode, since
// a path can name another file tomorrow.
type FileID struct{ Device, Inode uint64 }

// String returns "device:inode" in decimal, the form of EnvStateDir.
func (id FileID) String() string {
	return strconv.FormatUint(id.Device, 10) + ":" + strconv.FormatUint(id.Inode, 10)
}

// Spec describes the process that Start starts.
type Spec struct {
	Path   string   // of the executable; PATH is not searched; relative to Dir
	Args   []string // after argument 0, which is Path
	Env    []string // the complete environment, "name=value"
	Dir    string   // working folder; empty means the caller's
	Output *os.File // stdout and stderr; nil means /dev/null
	Lease  *Lease   // inherited at descriptor 3; nil means none
	Cgroup string   // cgroup v2 folder to be born in; empty means the caller's
}

// ExitSource says how an exit is known.
type ExitSource int

const (
	ExitUnknown ExitSource = iota // it is not known, and Code and Signal mean nothing
	ExitWait                      // by wait: it was our child
	ExitPidfd                     // by PIDFD_INFO_EXIT, after another parent had reaped it (Linux 6.15)
	ExitStat                      // by field 52 of /proc/PID/stat, before its parent reaps it
)

// String returns the name that records and dumps use.
func (s ExitSource) String() string {
	switch s {
	case ExitUnknown:
		return "unknown"
	case ExitWait:
		return "wait"
	case ExitPidfd:
		return "pidfd"
	case ExitStat:
		return "stat"
	}
	return "source-" + strconv.Itoa(int(s))
}

// Exit is how a process ended. Where Source is ExitUnknown nothing else holds; it
// is never code 0 by default.
type Exit struct {
	Code   int            // of exit, 0 to 255; 0 where Signal is set
	Signal syscall.Signal // that killed it; 0 where it exited by itself
	Source ExitSource
}

// String returns the exit for people: "exit code 3", "signal killed", "unknown".
func (e Exit) String() string {
	switch {
	case e.Source == ExitUnknown:
		return "unknown"
	case e.Signal != 0:
		return "signal " + e.Signal.String()
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

// Holder is a process that carries a worker's token, or belongs to a family. The
// values from its environment are what it says of itself: match them, but never
// print, open or run them unchecked.
type Holder struct {
	PID, PPID, PGID, SID int
	UID                  uint32 // effective uid
	State                byte   // as in /proc/PID/stat; of a living thread where the first one ended
	StartTicks           uint64 // clock ticks after boot
	MasterID             string
	StateDir             string
	WorkerID             string
	Token                string
	Port                 int // 0 where it names none
}

// Ownership says whose listeners a port has.
type Ownership int

const (
	PortUnknown Ownership = iota // a listener's owner could not be read
	PortFree                     // nobody listens
	PortOurs                     // every listener belongs to the family
	PortForeign                  // at least one listener belongs to somebody else
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

// Family is an instance with all that descends from it. A process belongs to it
// that carries the token, holds the lease's lock, lives in the cgroup, or descends
// from one that does. This process and its ancestors never belong to it.
type Family struct {
	Token string // of the instance

	// Leader is the instance's PID, 0 where it is dead or not known. A bare PID
	// proves nothing: it is a hint of where to look first.
	Leader int
	// Main is the opened instance, nil where it is dead or not known. It makes the
	// leader a proven member even if it cleared its environment and closed the lease.
	Main *Process

	LeasePath string // of the lease file; empty means that there is none
	Lease     FileID // of the instance's own lease
	Cgroup    string // folder of the instance's own cgroup; empty means that there is none
}

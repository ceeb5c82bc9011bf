package process

import (
	"errors"
	"os"
	"strconv"
	"syscall"
)

// Environment variables that every instance and its descendants carry. A master uses these names to find the
// workers of an earlier master.
const (
	EnvMasterID    = "HSU_MASTER_ID"    // UUID of the master that started the instance
	EnvStateDir    = "HSU_STATE_DIR"    // the master's state folder as FileID.String, "device:inode"
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
)

// Proof is the kind of evidence that a process is the recorded one.
type Proof int

const (
	// ProofPidfdInode is the inode of the process's pidfd: unique per process and
	// boot, the same for every observer and across execve (Linux 6.9, PID_FS_MAGIC).
	ProofPidfdInode Proof = iota
	// ProofStartTimeToken is the start time together with the token in the environment. The start time alone repeats
	// if a PID is reused within one clock tick.
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

// Identity is the recorded evidence by which a process is recognised later.
type Identity struct {
	BootID       string // of the boot in which it ran; a different boot ID means that it is gone
	PID          int    // as seen in PIDNamespace
	Inode        uint64 // of its pidfd; 0 unless Proof is ProofPidfdInode
	StartTicks   uint64 // clock ticks after boot, field 22 of /proc/PID/stat
	PIDNamespace uint64 // inode of the PID namespace of PID
	Proof        Proof  // which of the above is the evidence
}

// FileID identifies a file or folder on this machine by device and inode, because a path can name another file
// later.
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
	Cgroup string   // cgroup v2 folder to start in; empty means the caller's
	Exe    FileID   // the file that the process must run, from CheckProgram; zero means any
}

// ExitSource is the source of the information about an exit.
type ExitSource int

const (
	ExitUnknown ExitSource = iota // unknown; Code and Signal have no meaning
	ExitWait                      // by wait: the process was a child of this one
	ExitPidfd                     // by PIDFD_INFO_EXIT, after another parent had reaped it (Linux 6.15)
	ExitStat                      // by field 52 of /proc/PID/stat, before its parent reaped it
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

// Exit describes how a process ended. If Source is ExitUnknown, the other fields have no meaning; in
// particular, code 0 then does not mean a clean exit.
type Exit struct {
	Code   int            // exit code, 0 to 255; 0 if Signal is set
	Signal syscall.Signal // the signal that killed it; 0 if it exited
	Source ExitSource
}

// String describes the exit for people: "exited with code 3", "killed by SIGKILL", "exited with an unknown code".
func (e Exit) String() string {
	switch {
	case e.Source == ExitUnknown:
		return "exited with an unknown code"
	case e.Signal != 0:
		return "killed by " + SignalName(e.Signal)
	}
	return "exited with code " + strconv.Itoa(e.Code)
}

// Clean reports whether the process is known to have ended with code 0.
func (e Exit) Clean() bool { return e.Source != ExitUnknown && e.Signal == 0 && e.Code == 0 }

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

	LeasePath string // of the lease file; empty means none
	Lease     FileID // of the instance's own lease
	// A holder of the lease that matches none of these is a foreign process that was given the descriptor.
	Session    int    // of the instance, which is its recorded PID; 0 means unknown
	UID        uint32 // of the user that runs the instance
	StartTicks uint64 // of the instance; 0 means unknown
	Cgroup     string // folder of the instance's own cgroup; empty means none
}

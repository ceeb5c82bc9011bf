package process

import (
	"strconv"
	"time"

	"github.com/core-tools/hsu-master/identity"
)

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

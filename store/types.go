package store

import "time"

// Desired is what an operator or the policy wants of a worker; it survives
// every restart of the master.
type Desired string

// The values of Desired.
const (
	DesiredRunning Desired = "running"
	DesiredStopped Desired = "stopped"
)

// Status is where a worker stands in its life.
type Status string

// The values of Status.
const (
	StatusStarting  Status = "starting"
	StatusRunning   Status = "running"
	StatusUnhealthy Status = "unhealthy"
	StatusStopping  Status = "stopping"
	StatusStopped   Status = "stopped"
	StatusBackoff   Status = "backoff"
	StatusFailed    Status = "failed"
)

// Proof names the evidence that identifies an instance after a restart of the
// master. The zero value means that none was recorded (yet).
type Proof string

// The values of Proof.
const (
	ProofNone           Proof = ""
	ProofPidfdInode     Proof = "pidfd-inode"
	ProofStartTimeToken Proof = "start-time-token"
)

// ExitSource tells how the code of an exit became known.
type ExitSource string

// The values of ExitSource. The zero value of an Exit is written as ExitUnknown.
const (
	ExitUnknown ExitSource = "unknown"
	ExitWait    ExitSource = "wait"
	ExitPidfd   ExitSource = "pidfd"
	ExitStat    ExitSource = "stat"
)

// Worker is one replica slot of a unit. Its key in the registry is ID.
type Worker struct {
	ID      string // stable, for example "worker-0"
	Unit    string
	Desired Desired
	Status  Status
	// Reason says why Status is what it is, where that is not obvious.
	Reason string
	// Instance is the process that fills the slot, nil where none does.
	Instance *Instance
	// Incarnation counts the instances started so far.
	Incarnation uint64
	// SpecHash is that of the unit's spec which the instance was started with.
	SpecHash string
	// Restarts counts restarts by policy so far.
	Restarts uint64
	Budget   Budget
	// LastExit is nil before any exit.
	LastExit *Exit
	// Outdated is set where the binary or the spec changed since the start.
	Outdated bool
	// Port is the one to prefer at the next start, 0 for none.
	Port int
	// Services are what it offers, sorted by name.
	Services []Offer
}

// Offer is a gRPC service that a worker offers.
type Offer struct {
	Name string // full
	// Reflected: the worker's reflection has told of it, not the unit.
	Reflected bool
	// Unlisted: the worker's reflection does not list it, so that it gets no calls of it.
	Unlisted bool
	// Assumed: nobody has said it, it is what workers are taken to offer of whom nothing is said.
	Assumed bool
}

// Denied tells that nobody says that the worker offers it: it was assumed, and its reflection does not list it. It is
// kept so that the next master does not assume it again.
func (o Offer) Denied() bool { return o.Assumed && o.Unlisted }

// Registration is an endpoint from outside, under one of the services that it offers.
type Registration struct {
	Service string
	Address string // host:port
	// TTL is after which time without a heartbeat it is removed; 0: never.
	TTL        time.Duration
	Registered time.Time
}

// Instance is one operating-system process, proven or about to be forked.
type Instance struct {
	Token string // 128 random bits in hex; no other instance ever has it
	// PID is 0 between the intent to fork and the record of the fork.
	PID int
	// Inode is that of the pidfd, StartTicks field 22 of /proc/PID/stat.
	Inode, StartTicks uint64
	BootID            string
	// PIDNamespace is the inode of the namespace that PID belongs to.
	PIDNamespace uint64
	Proof        Proof
	Port         int
	ExeHash      string // SHA-256 of the executable, in hex
	Started      time.Time
	// Lease is the file which the instance and its family hold open.
	Lease FileID
	UID   uint32 // effective uid it was started with
}

// FileID identifies a file or directory on this machine for as long as it exists.
type FileID struct{ Device, Inode uint64 }

// Budget is what is left of a worker's restarts. It is kept in boot id and
// CLOCK_BOOTTIME, since wall time may step.
type Budget struct {
	// Backoff is the next delay; 0 means the initial one.
	Backoff time.Duration
	// Spent are the restarts in the window, each as a reading of ReadyClock.
	Spent []time.Duration
	// ReadyClock is how long the worker has been ready in all.
	ReadyClock time.Duration
	// ReadySince and RetryAt are readings of CLOCK_BOOTTIME in BootID: when the
	// present instance became ready, and when the present backoff ends. 0: not.
	ReadySince, RetryAt time.Duration
	BootID              string
}

// Exit is how an instance ended.
type Exit struct {
	// Code is meaningful where Signal is 0 and Source is not ExitUnknown.
	Code   int
	Signal int // number of the signal that killed it, or 0
	Source ExitSource
	At     time.Time
}

// Event is one line of the history of the workers.
type Event struct {
	Time   time.Time
	Worker string // empty where it concerns the master
	Type   string
	Detail string
}

// Meta is the record of the database itself.
type Meta struct {
	MasterID string // UUID, the same as in the file master-id
	Created  time.Time
	// StateDir is the directory that the database was made for. Another one
	// means that it was copied; see [DB.Moved].
	StateDir FileID
	// CleanShutdown is set by an orderly stop and cleared by the next start.
	CleanShutdown bool
	// CountShortSince is zero where the processed count is exact. Else what was
	// processed after this moment may be missing in it, since a damage took the
	// only record.
	CountShortSince time.Time
}

// Snapshot is the whole registry at one moment.
type Snapshot struct {
	SchemaVersion uint64
	Meta          Meta
	Workers       []Worker // natural order of ids: worker-2 before worker-10
	// Registered are the endpoints from outside, by service and address.
	Registered []Registration
	// Bad holds the records that could not be read, by "bucket/key". They hide
	// none of the others.
	Bad       map[string]error
	Processed int64   // requests processed, acknowledged ones at least
	Results   int     // that are kept: see [Result]
	Events    []Event // oldest first
}

// Package records has the content of state.db as values: the records of the units, the workers, the registered
// endpoints, the events, the results and the database itself, the changes of them, and their form in the buckets. Every
// change is checked before it is stored, every record is read on its own, and a record that cannot be read hides no
// other. The schema is described in package store.
package records

import (
	"crypto/sha256"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/eventtype"
)

const (
	// MaxRequestID bounds the id of a request, in bytes.
	MaxRequestID = 128
	// MaxResponse is the size of the largest response that is kept, in bytes. If the response is larger, only the
	// fact that the request was counted is kept.
	MaxResponse = 64 << 10
)

// Desired is the state that an operator or the policy wants for a worker. It survives every restart of the master.
type Desired string

// The values of Desired.
const (
	DesiredRunning Desired = "running"
	DesiredStopped Desired = "stopped"
)

// Status is the current phase of a worker's life.
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
	// StatusCompleted is that of a worker that ended with a success code and is not restarted by its policy. A worker
	// that was stopped is StatusStopped.
	StatusCompleted Status = "completed"
	// StatusWaiting is that of a worker that is started when the units that it depends on are as far as it needs.
	StatusWaiting Status = "waiting"
	// StatusScheduled is that of a worker that waits for the next due time of its schedule. Its reason is why the last
	// run failed.
	StatusScheduled Status = "scheduled"
	// StatusAbsent is that of an unmanaged unit whose process is not found.
	StatusAbsent Status = "absent"
)

// Worker is one replica slot of a unit. Its key in the registry is ID.
type Worker struct {
	ID      string // stable, for example "worker-0"
	Unit    string
	Desired Desired
	Status  Status
	// Reason explains Status if it is not obvious.
	Reason string
	// Instance is the process that fills the slot, nil if there is none.
	Instance *Instance
	// Incarnation counts the instances started so far.
	Incarnation uint64
	// SpecHash is the hash of the unit's spec with which the instance was started. It does not cover the values of the
	// environment.
	SpecHash string
	// Restarts counts restarts by policy so far.
	Restarts uint64
	History  RestartHistory
	// LastExit is nil before any exit.
	LastExit *identity.Exit
	// Exits are the last ones, the newest last: see [Worker.Ended].
	Exits []PastExit
	// Outdated is set if the binary or the spec has changed since the start.
	Outdated bool
	// Port is the preferred port for the next start, 0 for none.
	Port int
	// Services are the services that the worker offers, sorted by name.
	Services []Offer
	// Due is how far it has come in its schedule, nil if it has none.
	Due *Due
	// SecretKey is the id of the key of EnvironmentMAC. It is empty if a version without such a key started the
	// instance: its SpecHash covers the values of the environment too.
	SecretKey string
	// EnvironmentMAC is the HMAC of the environment with which the instance was started, empty if there was none.
	EnvironmentMAC string
	// Hooks are the runs of hooks that are about to begin, or of which processes may live.
	Hooks []HookRun
	// StoppedBy is the operator who has stopped the worker, nil if Desired is DesiredRunning.
	StoppedBy *Operator
	// Found is the process of an unmanaged unit, nil if there is none. It is not Instance, so that a recovery never
	// takes it for a process that this master has started.
	Found *Found
}

// PastExit is the end of an instance, with its cause for people.
type PastExit struct {
	identity.Exit
	Reason string
}

// maxExits bounds the exits that are kept of a worker.
const maxExits = 5

// Ended adds the end of the instance to the record.
func (w *Worker) Ended(e identity.Exit, reason string) {
	w.LastExit = &e
	kept := w.Exits[max(0, len(w.Exits)-maxExits+1):]
	w.Exits = append(slices.Clone(kept), PastExit{e, reason}) // other copies of the record share the old ones
}

// HookRun is one run of a command around a worker.
type HookRun struct {
	Hook string // "before", "stop" or "after"
	// Instance has the token and the lease of the run, and where it runs. Its PID is 0, and its StartTicks are those of
	// the record: no process of the run started earlier.
	Instance
}

// Unmanaged reports whether the record is that of an unmanaged unit.
func (w Worker) Unmanaged() bool { return w.Found != nil || w.Status == StatusAbsent }

// Found is a process that another program has started.
type Found struct {
	identity.Process
	Name    string // of the program
	Started time.Time
}

// Due is how far a worker has come in its schedule. Its times are of the wall clock.
type Due struct {
	// Schedule is the text of the schedule and the time zone that the times are of.
	Schedule string
	// Next is the due time that the worker waits for.
	Next time.Time
	// Last is the last due time that was run, skipped or missed: neither it nor an earlier one is run again.
	Last time.Time
}

// UnitKind is the relation of the master to the workers of a unit.
type UnitKind string

// The values of UnitKind.
const (
	KindUnknown    UnitKind = "" // the record was derived from those of the workers
	KindIntegrated UnitKind = "integrated"
	KindManaged    UnitKind = "managed"
	KindUnmanaged  UnitKind = "unmanaged"
)

// Unit is a unit of the set that the master has applied last. Its key in the registry is Name.
type Unit struct {
	Name string
	Kind UnitKind
	// Replicas is the configured number of workers.
	Replicas int
	// Scale is the number that an operator has set in place of Replicas, nil for none. A change of Replicas removes
	// it.
	Scale *int
	// Disabled is set if an operator has disabled the unit.
	Disabled bool
	// Retired is set if the unit is not in the set any more. The record is removed with that of its last worker: see
	// [PutUnit] and [DeleteWorker].
	Retired bool
	// SpecHash is the hash of the unit's spec, as in Worker; empty if it is not known.
	SpecHash string
	// Changed is the time of the last change of the record, and ChangedBy the operator whose command that was, nil if
	// none was.
	Changed   time.Time
	ChangedBy *Operator
	// SecretKey and EnvironmentMAC are as in Worker.
	SecretKey      string
	EnvironmentMAC string
	// Rollout is the replacement of its workers that is under way, nil if there is none.
	Rollout *Rollout
}

// Rollout is the replacement of workers of a unit, one after the other. It is recorded before the first one is stopped,
// and removed when the last one is ready, or when one does not get ready. A master that is started meanwhile continues
// it.
type Rollout struct {
	// Act is the command that began it. An ActReload replaces only workers that are outdated, or that have failed or
	// completed.
	Act RolloutAct
	// Workers are those to be replaced, in this order.
	Workers []RolloutWorker
	// Spare is set if the unit has one more worker than wanted until the others are replaced.
	Spare bool
	// Operator is the user whose command began it, nil if none did.
	Operator *Operator
}

// RolloutAct is a command that replaces workers.
type RolloutAct string

// The values of RolloutAct.
const (
	ActReload  RolloutAct = "reload"
	ActRestart RolloutAct = "restart"
)

// RolloutWorker is a worker that a rollout replaces.
type RolloutWorker struct {
	ID          string
	Incarnation uint64 // when the rollout began: a later one is the replacement
}

// Wanted returns the number of workers that the unit shall have.
func (u Unit) Wanted() int {
	switch {
	case u.Retired, u.Disabled:
		return 0
	case u.Scale != nil:
		return *u.Scale
	}
	return u.Replicas
}

// Slots returns the number of workers that the unit has now: the wanted ones, and a spare one during a rollout.
func (u Unit) Slots() int {
	n := u.Wanted()
	if u.Rollout != nil && u.Rollout.Spare {
		n++
	}
	return n
}

// Offer is a gRPC service that a worker offers.
type Offer struct {
	Name string // full name of the service
	// Reflected is set if the service was learned from the worker's reflection, not from the unit.
	Reflected bool
	// Unlisted is set if the worker's reflection does not list the service, so that the worker gets no calls for
	// it.
	Unlisted bool
	// Assumed is set if neither the unit nor the reflection names the service: workers without any such information
	// are assumed to offer it.
	Assumed bool
}

// Denied reports whether the offer was only assumed and the worker's reflection does not list it. The record is
// kept so that the next master does not assume the service again.
func (o Offer) Denied() bool { return o.Assumed && o.Unlisted }

// Registration is a registered endpoint, under one of the services that it offers.
type Registration struct {
	Service string
	Address string // host:port
	// TTL is the time without a heartbeat after which the endpoint is removed; 0 means never.
	TTL        time.Duration
	Registered time.Time
}

// Instance is one operating-system process, either proven or about to be forked.
type Instance struct {
	Token string // 128 random bits in hex, unique to this instance
	// Process is the evidence by which the process is recognised later. Its PID is 0 after the intent to fork was
	// recorded and before the fork was.
	identity.Process
	Port    int
	ExeHash string // SHA-256 of the executable, in hex
	Started time.Time
	// Lease is the file that the instance and its descendants hold open.
	Lease identity.FileID
	UID   uint32 // effective uid with which it was started
	// Notify is its notify socket, nil if it has none.
	Notify *Notify
	// OwnPort is set if the process chooses its port itself. Port is then 0 until the process was ready.
	OwnPort bool
	// Announcements are the modules that processes of its family have published, by name.
	Announcements []Announcement
}

// Notify is the notify socket of an instance.
type Notify struct {
	Path string
	// Watchdog is the longest time between two WATCHDOG=1 that the instance was told, in whole microseconds; 0 if it
	// was told none.
	Watchdog time.Duration
	// Watched is set when the instance has sent WATCHDOG=1. It is held to it from then on.
	Watched bool
}

// Announcement is an HSU module that a process has published at the module registry.
type Announcement struct {
	Module string
	// PID is the process that runs the module, Inode and StartTicks are from its [identity.Process].
	PID               int
	Inode, StartTicks uint64
	APIs              []AnnouncedAPI
}

// AnnouncedAPI is an API of a module.
type AnnouncedAPI struct {
	ServiceIDs []string // in the module's own terms
	Port       int
	Protocol   string
	Metadata   string // a JSON object, or empty
}

// RestartHistory is the state of a worker's restart budget and backoff. It is kept in boot id and CLOCK_BOOTTIME, since
// wall time may step.
type RestartHistory struct {
	// Backoff is the next delay; 0 means the initial one.
	Backoff time.Duration
	// Spent are the restarts in the window, each as a reading of ReadyClock.
	Spent []time.Duration
	// ReadyClock is the total time that the worker has been ready.
	ReadyClock time.Duration
	// ReadySince is when the current instance became ready, and RetryAt is when the current backoff, or the wait of a
	// failed worker, ends. Both are readings of CLOCK_BOOTTIME in BootID; 0 means not ready or no wait.
	ReadySince, RetryAt time.Duration
	BootID              string
	// FailedWait is the last wait of the failed worker; 0 means that it has not failed since it had its whole budget.
	FailedWait time.Duration
}

// Event is one line of the history of the workers.
type Event struct {
	Time     time.Time
	Worker   string // empty if the event concerns the master or a unit
	Unit     string // empty if the event concerns the master or one worker
	Type     string
	Detail   string
	Operator *Operator // whose command was the cause; nil if none was
}

// isAct reports whether the event is an act of an operator, and not the end of a worker, which may name one too.
func (e Event) isAct() bool {
	ends := []string{string(StatusStopping), string(StatusStopped), eventtype.Removed}
	return e.Operator != nil && !slices.Contains(ends, e.Type)
}

// Operator is a user who gave the master a command.
type Operator struct {
	UID     uint32
	Command string // as typed, for people; may be empty
}

// Result is the stored result of a request with an id.
type Result struct {
	ID     string // printable ASCII, 1 to MaxRequestID bytes
	Method string // with the leading slash
	// Digest is the digest of the request. It reveals the reuse of an id for a different request.
	Digest [sha256.Size]byte
	// Response is encoded. LeftOut is set if the response was larger than MaxResponse; Response is then empty.
	Response []byte
	LeftOut  bool
	Stored   time.Time // wall-clock time, for display
}

// Meta is the record of the database itself.
type Meta struct {
	MasterID string // UUID, the same as in the file master-id
	Created  time.Time
	// StateDir is the directory that the database was made for. If the current directory is another one, the
	// database was copied or moved; see [DB.Moved].
	StateDir identity.FileID
	// CleanShutdown is set by an orderly stop and cleared by the next start.
	CleanShutdown bool
	// CountShortSince is zero if the processed count is exact. Otherwise, requests processed after this time may be
	// missing from the count, because damage destroyed their only record.
	CountShortSince time.Time
}

// Snapshot is the whole registry at one moment.
type Snapshot struct {
	SchemaVersion uint64
	Meta          Meta
	Workers       []Worker // in natural order of ids: worker-2 before worker-10
	Units         []Unit   // by name
	// Registered are the registered endpoints, by service and address.
	Registered []Registration
	// Bad holds the errors of records that could not be read, by "bucket/key". The other records are unaffected.
	Bad       map[string]error
	Processed int64   // requests processed: at least the acknowledged ones
	Results   int     // number of stored results: see [Result]
	Events    []Event // oldest first
}

// Earliest returns the earliest of the times that are not zero, or zero.
func Earliest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

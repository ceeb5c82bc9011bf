package supervisor

import (
	"context"
	"log/slog"
	"time"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// Evidence is what a [Decision] rests on.
type Evidence struct {
	// Recorded is nil where no record names the worker.
	Recorded *Recorded `json:"recorded"`
	// Found is the process that the decision is about, nil where none was looked for.
	Found *Found `json:"found"`
	// Others are processes of the same worker that belong to other instances.
	Others []Found `json:"others,omitempty"`
	// Left are processes that an instance has left which is gone itself.
	Left []Found `json:"left,omitempty"`
	// Port is the one that the worker has, or would prefer; nil where it has none.
	Port *PortOwner `json:"port"`
	// Lease says of the lease of an instance that is gone who holds it: "held" (by
	// somebody), "free" or "unknown". Empty where that was not asked.
	Lease string `json:"lease,omitempty"`
	// OtherBoot: the record is of an earlier boot of the machine.
	OtherBoot bool `json:"other_boot,omitempty"`
	// Moved: the state directory is a copy, or was moved.
	Moved bool `json:"moved,omitempty"`
	// Outdated: the executable or the arguments have changed since the start.
	Outdated bool `json:"outdated,omitempty"`
	// RestartIn is how many seconds a start waits, at most.
	RestartIn float64 `json:"restart_in,omitempty"`
}

// Recorded is what the registry says of a worker. What belongs to the instance is
// zero where none is recorded; the PID alone is where the start was cut off.
type Recorded struct {
	Desired    store.Desired `json:"desired"`
	Status     store.Status  `json:"status"`
	PID        int           `json:"pid"`
	Inode      uint64        `json:"inode,omitempty"` // of the pidfd
	StartTicks uint64        `json:"start_ticks,omitempty"`
	BootID     string        `json:"boot_id,omitempty"`
	Proof      store.Proof   `json:"proof,omitempty"`
	Token      string        `json:"token,omitempty"`
	Port       int           `json:"port"`
	Lease      string        `json:"lease,omitempty"` // device:inode
	StartedAt  *time.Time    `json:"started_at,omitempty"`
}

// FoundState is what became of a process.
type FoundState string

// The values of FoundState.
const (
	FoundAlive        FoundState = "alive"
	FoundSuspended    FoundState = "suspended"    // a signal has stopped it
	FoundEnded        FoundState = "ended"        // and was not reaped yet
	FoundGone         FoundState = "gone"         // nobody has the PID
	FoundReused       FoundState = "reused"       // another process has it
	FoundUnverifiable FoundState = "unverifiable" // it cannot be told
	FoundNothing      FoundState = "nothing"      // no process shows the token
)

// Found is a process as the scan of all processes and the kernel show it.
type Found struct {
	State         FoundState `json:"state"`
	PID           int        `json:"pid"`
	Inode         uint64     `json:"inode,omitempty"`
	StartTicks    uint64     `json:"start_ticks,omitempty"`
	TokenSeen     bool       `json:"token_seen"` // its environment names the token, or its own one
	SessionLeader bool       `json:"session_leader,omitempty"`
	Exit          string     `json:"exit,omitempty"` // how it ended, where that is known
}

// PortOwner says who listens on a port: "ours" (the worker's family), "free"
// (nobody), "foreign" (somebody else) or "unknown".
type PortOwner struct {
	Port  int    `json:"port"`
	Owner string `json:"owner"`
}

// recordedOf shows the record of a worker.
func recordedOf(w store.Worker) *Recorded {
	r := &Recorded{Desired: w.Desired, Status: w.Status, Port: w.Port}
	if i := w.Instance; i != nil {
		r.PID, r.Inode, r.StartTicks, r.BootID, r.Proof = i.PID, i.Inode, i.StartTicks, i.BootID, i.Proof
		r.Token, r.Port = i.Token, i.Port
		if i.Lease != (store.FileID{}) {
			r.Lease = process.FileID(i.Lease).String()
		}
		if !i.Started.IsZero() {
			started := i.Started.UTC()
			r.StartedAt = &started
		}
	}
	return r
}

func foundOf(h process.Holder) Found {
	return Found{State: FoundAlive, PID: h.PID, StartTicks: h.StartTicks, TokenSeen: h.Token != "", SessionLeader: h.PID == h.SID}
}

// log writes the decision as one line.
func (d Decision) log(log *slog.Logger) {
	level := slog.LevelInfo
	if d.Action == ActionHold || d.Action == ActionSweepStray || d.Action == ActionFail {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.String("action", string(d.Action)), slog.String("reason", d.Reason)}
	log.LogAttrs(context.Background(), level, "worker recovery", append(attrs, d.Evidence.attrs()...)...)
}

// attrs are the parts of the evidence that say something.
func (e Evidence) attrs() []slog.Attr {
	var attrs []slog.Attr
	if e.Recorded != nil {
		attrs = append(attrs, slog.String("recorded", string(e.Recorded.Status)), slog.Int("recorded_pid", e.Recorded.PID))
	}
	if e.Found != nil {
		attrs = append(attrs, slog.String("found", string(e.Found.State)), slog.Int("pid", e.Found.PID), slog.Bool("token_seen", e.Found.TokenSeen))
	}
	if e.Port != nil {
		attrs = append(attrs, slog.Int("port", e.Port.Port), slog.String("port_owner", e.Port.Owner))
	}
	if e.Lease != "" {
		attrs = append(attrs, slog.String("lease", e.Lease))
	}
	if len(e.Left) > 0 {
		attrs = append(attrs, slog.Int("left", len(e.Left)))
	}
	if len(e.Others) > 0 {
		attrs = append(attrs, slog.Int("others", len(e.Others)))
	}
	if e.OtherBoot {
		attrs = append(attrs, slog.Bool("other_boot", true))
	}
	if e.Moved {
		attrs = append(attrs, slog.Bool("moved", true))
	}
	return attrs
}

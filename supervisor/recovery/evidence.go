package recovery

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// Evidence is the basis of a [Decision].
type Evidence struct {
	// Recorded is nil if the worker has no record.
	Recorded *Recorded `json:"recorded"`
	// Found is the process that the decision is about, nil if the search was not made.
	Found *Found `json:"found"`
	// Others are processes of the same worker that belong to other instances.
	Others []Found `json:"others,omitempty"`
	// Left are remaining descendants of an instance that is gone.
	Left []Found `json:"left,omitempty"`
	// Commands are processes of start.before, stop.command or stop.after that an earlier master ran. They are stopped
	// first, whatever the action is.
	Commands []Found `json:"commands,omitempty"`
	// Hooks are the recorded runs of these commands which may not have ended.
	Hooks []HookRun `json:"hooks,omitempty"`
	// Port is the worker's port, or the one that it would prefer; nil if it has none.
	Port *PortOwner `json:"port"`
	// Lease is the state of the lease of an instance that is gone: "held" (by any process), "free" or "unknown".
	// Empty if it was not checked.
	Lease string `json:"lease,omitempty"`
	// OtherBoot reports whether the record is of an earlier boot of the machine.
	OtherBoot bool `json:"other_boot,omitempty"`
	// Moved reports whether the state directory is a copy or was moved.
	Moved bool `json:"moved,omitempty"`
	// Outdated reports whether the executable or the unit has changed since the start.
	Outdated bool `json:"outdated,omitempty"`
	// Incomparable reports whether the environment may have changed too: it was recorded with a key that is lost, or
	// that cannot be read.
	Incomparable bool `json:"environment_incomparable,omitempty"`
	// Rollout is the command, "restart" or "reload", that was under way and replaces the adopted worker, or starts the
	// one that has failed or completed; empty for none. Only [Plan] sets it.
	Rollout string `json:"rollout,omitempty"`
	// RestartIn is the maximum delay of a start, or the time until a failed worker is tried again, in seconds.
	RestartIn float64 `json:"restart_in,omitempty"`
}

// Recorded is the record of a worker. The fields of the instance are zero if none is recorded. PID, Inode,
// StartTicks and Proof are zero if the start was cut off before they were recorded.
type Recorded struct {
	Desired    records.Desired `json:"desired"`
	Status     records.Status  `json:"status"`
	PID        int             `json:"pid"`
	Inode      uint64          `json:"inode,omitempty"` // of the pidfd
	StartTicks uint64          `json:"start_ticks,omitempty"`
	BootID     string          `json:"boot_id,omitempty"`
	Proof      identity.Proof  `json:"proof,omitempty"`
	Token      string          `json:"token,omitempty"`
	Port       int             `json:"port"`
	Lease      string          `json:"lease,omitempty"` // device:inode
	StartedAt  *time.Time      `json:"started_at,omitempty"`
}

// FoundState is the state of a process.
type FoundState string

// The values of FoundState.
const (
	FoundAlive        FoundState = "alive"
	FoundSuspended    FoundState = "suspended"    // a signal has stopped it
	FoundEnded        FoundState = "ended"        // not reaped yet
	FoundGone         FoundState = "gone"         // the PID is free
	FoundReused       FoundState = "reused"       // the PID belongs to another process
	FoundUnverifiable FoundState = "unverifiable" // cannot be determined
	FoundNothing      FoundState = "nothing"      // no process shows the token
)

// Found is a process as seen by the scan of all processes and by the kernel.
type Found struct {
	State         FoundState `json:"state"`
	PID           int        `json:"pid"`
	Inode         uint64     `json:"inode,omitempty"`
	StartTicks    uint64     `json:"start_ticks,omitempty"`
	TokenSeen     bool       `json:"token_seen"` // its environment names the recorded token, or its own
	SessionLeader bool       `json:"session_leader,omitempty"`
	Exit          string     `json:"exit,omitempty"` // how it ended, if known
}

// PortOwner is the owner of the listeners on a port: "ours" (the worker's family), "free" (no listener), "foreign"
// (another process) or "unknown".
type PortOwner struct {
	Port  int    `json:"port"`
	Owner string `json:"owner"`
}

// recordedOf returns the record of a worker as evidence.
func recordedOf(w records.Worker) *Recorded {
	r := &Recorded{Desired: w.Desired, Status: w.Status, Port: w.Port}
	if f := w.Found; f != nil {
		r.PID, r.Inode, r.StartTicks, r.BootID, r.Proof = f.PID, f.Inode, f.StartTicks, f.BootID, f.Proof
	}
	if i := w.Instance; i != nil {
		r.PID, r.Inode, r.StartTicks, r.BootID, r.Proof = i.PID, i.Inode, i.StartTicks, i.BootID, i.Proof
		r.Token, r.Port = i.Token, i.Port
		if i.Lease != (identity.FileID{}) {
			r.Lease = i.Lease.String()
		}
		if !i.Started.IsZero() {
			started := i.Started.UTC()
			r.StartedAt = &started
		}
	}
	return r
}

func foundOf(h process.Holder) Found {
	return Found{
		State: FoundAlive, PID: h.PID, StartTicks: h.StartTicks,
		TokenSeen: h.Token != "", SessionLeader: h.PID == h.SID,
	}
}

// Log writes the decision as one line.
func (d Decision) Log(log *slog.Logger) {
	level := slog.LevelInfo
	if d.Action == ActionHold || d.Action == ActionSweepStray || d.Action == ActionFail {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.String("action", string(d.Action)), slog.String("reason", d.Reason)}
	log.LogAttrs(context.Background(), level, "worker recovery decided", append(attrs, d.Evidence.Attrs()...)...)
}

// Attrs returns the parts of the evidence that are not empty.
func (e Evidence) Attrs() []slog.Attr {
	var attrs []slog.Attr
	if e.Recorded != nil {
		attrs = append(attrs, slog.String("recorded", string(e.Recorded.Status)),
			slog.Int("recorded_pid", e.Recorded.PID))
	}
	if e.Found != nil {
		attrs = append(attrs, slog.String("found", string(e.Found.State)), slog.Int("pid", e.Found.PID),
			slog.Bool("token_seen", e.Found.TokenSeen))
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
	if len(e.Commands) > 0 {
		attrs = append(attrs, slog.Int("commands", len(e.Commands)))
	}
	if len(e.Hooks) > 0 {
		leases := make([]string, len(e.Hooks))
		for i, h := range e.Hooks {
			leases[i] = h.Hook + " " + h.Lease
		}
		attrs = append(attrs, slog.String("hook_leases", strings.Join(leases, ", ")))
	}
	if e.OtherBoot {
		attrs = append(attrs, slog.Bool("other_boot", true))
	}
	if e.Moved {
		attrs = append(attrs, slog.Bool("moved", true))
	}
	return attrs
}

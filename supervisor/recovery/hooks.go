package recovery

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// HookRun is the evidence about a recorded run of a hook.
type HookRun struct {
	Hook  string `json:"hook"`  // its key in a configuration file, such as "start.before"
	Lease string `json:"lease"` // "held", "free" or "unknown"
}

// MayLive reports whether processes of the recorded run of a hook may live that are this master's.
func (rc *Context) MayLive(run records.HookRun) bool {
	// A copied state directory must not command the original's commands.
	return run.BootID == rc.BootID && !rc.Moved
}

// hooks looks for processes of the recorded runs of hooks. If it cannot be told whether a run has ended, nothing of
// the worker may be started.
func (in inspection) hooks(ctx context.Context) {
	for _, run := range in.s.Rec.Hooks {
		if !in.rc.MayLive(run) {
			continue
		}
		kind := unit.Hook(run.Hook)
		lease, members, err := in.rc.Inspector.Left(ctx, kind.ID(in.s.ID), run.Instance, true)
		in.f.evidence.Hooks = append(in.f.evidence.Hooks, HookRun{kind.Key(), lease})
		for _, h := range members {
			known := func(f Found) bool { return f.PID == h.PID }
			if !slices.ContainsFunc(in.f.evidence.Commands, known) {
				in.f.evidence.Commands = append(in.f.evidence.Commands, foundOf(h))
			}
		}
		if err == nil && len(members) == 0 {
			err = in.rc.unseen(run, lease)
		}
		if err != nil && in.f.standing != unknown {
			in.f.HookHeld = errors.Is(err, process.ErrLeaseHeld)
			in.cannotTell(fmt.Errorf("%s that an earlier master ran: %w", kind.Key(), err))
		}
	}
}

// unseen returns why a run of a hook may live of which no process can be found, nil if it has ended. A lock is visible
// across PID namespaces. If the lease shows nothing, the search shows that the run has ended, but only where its
// processes would be visible: their token, or the deleted lease that they have open.
func (rc *Context) unseen(run records.HookRun, lease string) error {
	here := run.PIDNamespace == rc.PIDNamespace
	switch {
	case lease == launcher.LeaseFree, lease != launcher.LeaseHeld && here:
		return nil
	case lease == launcher.LeaseHeld && here:
		return process.ErrLeaseHeld
	case lease == launcher.LeaseHeld:
		return fmt.Errorf("it ran in another pid namespace (%d), and its lease is held: it lives: "+
			"start a master where it runs", run.PIDNamespace)
	}
	return fmt.Errorf("it ran in another pid namespace (%d), and its lease is gone or replaced and tells nothing: "+
		"start a master where it ran, or reboot if it is certainly gone", run.PIDNamespace)
}

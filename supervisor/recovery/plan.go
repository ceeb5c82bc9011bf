package recovery

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// PlanOptions are the inputs of a plan.
type PlanOptions struct {
	// Snapshot is the state that the next master will read: from [store.ReadSnapshot], or from the running
	// master.
	Snapshot records.Snapshot
	// StateDir is the master's state directory; empty means that no master has run yet. Then RuntimeDir is required.
	StateDir string
	// RuntimeDir holds the workers' leases; empty means "run" in StateDir.
	RuntimeDir string
	// AsRecorded makes every recorded worker wanted, regardless of the units.
	AsRecorded bool
	// Secrets is the key that the next master will have, empty if it cannot be read.
	Secrets records.SecretKey
}

// Plan returns the decisions that a master started now with these units would make about each worker. It decides
// the same as a starting master, from the same evidence, and executes nothing: it sends no signal, writes nothing, and
// connects to no worker, so it does not determine whether an adopted worker answers a Ping. A master that has the
// handle of a process knows how the process ended; Plan does not.
//
// Plan must run as root or as the user of the workers to be able to inspect them.
func Plan(ctx context.Context, opts PlanOptions, units ...unit.Spec) ([]Decision, error) {
	rc, err := planContext(opts)
	if err != nil {
		return nil, err
	}
	recs := UnitRecords(opts.Secrets, units, opts.Snapshot.Units, time.Time{})
	decisions, err := rc.Plan(ctx, opts.Snapshot.Workers, Wanted(units, recs), opts.AsRecorded)
	if err != nil {
		return nil, err
	}
	if opts.AsRecorded {
		recs = opts.Snapshot.Units
	}
	addRollouts(decisions, opts.Snapshot.Workers, recs)
	return decisions, nil
}

// planContext returns the context of a recovery by another process.
func planContext(opts PlanOptions) (*Context, error) {
	bootID, err := process.BootID()
	if err != nil {
		return nil, fmt.Errorf("tell this boot from others: %w", err)
	}
	var dir identity.FileID
	uid := os.Geteuid()
	if opts.StateDir != "" {
		if dir, err = store.DirID(opts.StateDir); err != nil {
			return nil, fmt.Errorf("identify the state directory: %w", err)
		}
		if uid, err = ownerOf(opts.StateDir); err != nil {
			return nil, fmt.Errorf("tell whose the state directory is: %w", err)
		}
	}
	if opts.RuntimeDir == "" {
		opts.RuntimeDir = filepath.Join(opts.StateDir, "run")
	}
	meta, stateDir := opts.Snapshot.Meta, dir.String()
	return &Context{
		Inspector: launcher.NewInspector(launcher.Options{
			MasterID: meta.MasterID, StateDir: func() string { return stateDir }, RuntimeDir: opts.RuntimeDir,
		}),
		Scan:         process.Scan,
		Kept:         func(string) (identity.Exit, bool) { return identity.Exit{}, false },
		MasterID:     meta.MasterID,
		StateDir:     stateDir,
		BootID:       bootID,
		PIDNamespace: process.PIDNamespace(),
		UID:          uid,
		Moved:        meta.StateDir != dir,
		Now:          process.BootTime,
		Secrets:      opts.Secrets,
	}, nil
}

// Plan decides about all workers and closes the processes that it inspected.
func (rc *Context) Plan(
	ctx context.Context, recs []records.Worker, units []unit.Spec, asRecorded bool,
) ([]Decision, error) {
	holders, err := rc.Scan(ctx)
	if ctx.Err() != nil {
		return nil, err
	}
	slots := rc.Slots(recs, units, asRecorded)
	strays := rc.Assign(slots, holders, err)
	decisions := make([]Decision, len(slots), len(slots)+len(strays))
	bounded, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	var wg sync.WaitGroup
	for i := range slots {
		wg.Go(func() {
			f, inst := rc.Inspect(bounded, &slots[i])
			if inst != nil {
				d := Compare(rc.Secrets, slots[i].Unit, slots[i].Rec)
				f.evidence.Outdated = d == Differs || d == Incomparable && len(rc.Secrets) > 0
				f.evidence.Incomparable = d == Incomparable
				_ = inst.Close()
			}
			decisions[i] = Decide(f)
		})
	}
	wg.Wait()
	var watched []Decision
	if !asRecorded {
		watched = rc.planWatched(bounded, recs, units, slots)
	}
	addWaits(decisions, slots, watched, units)
	for _, stray := range DecideStrays(strays) {
		decisions = append(decisions, stray.Decision)
	}
	return append(decisions, watched...), nil
}

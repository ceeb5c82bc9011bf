package supervisor

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// PlanOptions are the inputs of a plan.
type PlanOptions struct {
	// Registry is the registry that the next master will read: from [store.ReadSnapshot], or from the running
	// master.
	Registry store.Snapshot
	// StateDir is the master's state directory.
	StateDir string
	// RuntimeDir holds the workers' leases; empty means "run" in StateDir.
	RuntimeDir string
	// AsRecorded makes every recorded worker wanted, regardless of the units.
	AsRecorded bool
}

// Plan returns what a master started now with these units would do to each worker. It decides the same as
// [Supervisor.Serve], from the same evidence, and executes nothing: it sends no signal, writes nothing, and
// connects to no worker, so it does not determine whether an adopted worker answers a Ping. A master that has the
// handle of a process knows how the process ended; Plan does not.
//
// Plan must run as root or as the user of the workers to be able to inspect them.
func Plan(ctx context.Context, opts PlanOptions, units ...Unit) ([]Decision, error) {
	rc, err := planContext(opts)
	if err != nil {
		return nil, err
	}
	complete := make([]Unit, 0, len(units))
	for _, u := range units {
		complete = append(complete, u.withDefaults())
	}
	return rc.plan(ctx, opts.Registry.Workers, complete, opts.AsRecorded)
}

// planContext returns the context of a recovery by another process.
func planContext(opts PlanOptions) (*recoveryContext, error) {
	bootID, err := process.BootID()
	if err != nil {
		return nil, fmt.Errorf("tell this boot from others: %w", err)
	}
	dir, err := store.DirID(opts.StateDir)
	if err != nil {
		return nil, fmt.Errorf("identify the state directory: %w", err)
	}
	uid, err := ownerOf(opts.StateDir)
	if err != nil {
		return nil, fmt.Errorf("tell whose the state directory is: %w", err)
	}
	if opts.RuntimeDir == "" {
		opts.RuntimeDir = filepath.Join(opts.StateDir, "run")
	}
	meta, stateDir := opts.Registry.Meta, process.FileID(dir).String()
	return &recoveryContext{
		inspector: &osLauncher{
			masterID: meta.MasterID, stateDir: func() string { return stateDir }, runtimeDir: opts.RuntimeDir, uid: uid,
		},
		scan:     process.Scan,
		kept:     func(string) (process.Exit, bool) { return process.Exit{}, false },
		masterID: meta.MasterID,
		stateDir: stateDir,
		bootID:   bootID,
		uid:      uid,
		moved:    meta.StateDir != dir,
		now:      process.BootTime,
	}, nil
}

// plan decides about all workers and closes the processes that it inspected.
func (rc *recoveryContext) plan(
	ctx context.Context, recs []store.Worker, units []Unit, asRecorded bool,
) ([]Decision, error) {
	holders, err := rc.scan(ctx)
	if ctx.Err() != nil {
		return nil, err
	}
	slots := rc.slots(recs, units, asRecorded)
	strays := rc.assign(slots, holders, err)
	decisions := make([]Decision, len(slots), len(slots)+len(strays))
	bounded, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i := range slots {
		wg.Go(func() {
			f, inst := rc.inspect(bounded, &slots[i])
			if inst != nil {
				f.evidence.Outdated = outdated(slots[i].unit, slots[i].rec)
				_ = inst.Close()
			}
			decisions[i] = decide(f)
		})
	}
	wg.Wait()
	for _, stray := range decideStrays(strays) {
		decisions = append(decisions, stray.decision)
	}
	return decisions, nil
}

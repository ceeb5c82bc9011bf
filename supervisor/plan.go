package supervisor

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// PlanOptions say from what a plan is made.
type PlanOptions struct {
	// Registry is what the next master will read: from [store.ReadSnapshot], or from
	// the running master.
	Registry store.Snapshot
	// StateDir is where it is.
	StateDir string
	// RuntimeDir holds the workers' leases; empty means "run" in StateDir.
	RuntimeDir string
	// AsRecorded has every recorded worker wanted, whatever the units are.
	AsRecorded bool
}

// Plan tells what a master that is started now, with these units, would do to each
// worker: the same as [Supervisor.Serve] decides, from the same evidence. It does
// none of it: it signals nobody, writes nothing, and connects to no worker, so that
// whether an adopted one answers Ping is only seen at the start. How a process ended
// is known to a master that has its handle, but not to Plan.
//
// Processes can be looked at as root or as the user whom they run as.
func Plan(ctx context.Context, opts PlanOptions, units ...Unit) ([]Decision, error) {
	sc, err := planScene(opts)
	if err != nil {
		return nil, err
	}
	complete := make([]Unit, 0, len(units))
	for _, u := range units {
		complete = append(complete, u.withDefaults())
	}
	return sc.plan(ctx, opts.Registry.Workers, complete, opts.AsRecorded)
}

// planScene is the scene of a recovery that another process would make.
func planScene(opts PlanOptions) (*scene, error) {
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
	return &scene{
		looker:   &osLauncher{masterID: meta.MasterID, stateDir: func() string { return stateDir }, runtimeDir: opts.RuntimeDir},
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

// plan decides about all workers and lets go of what it looked at.
func (sc *scene) plan(ctx context.Context, recs []store.Worker, units []Unit, asRecorded bool) ([]Decision, error) {
	holders, err := sc.scan(ctx)
	if ctx.Err() != nil {
		return nil, err
	}
	slots := sc.slots(recs, units, asRecorded)
	strays := sc.assign(slots, holders, err)
	decisions := make([]Decision, len(slots), len(slots)+len(strays))
	bounded, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i := range slots {
		wg.Go(func() {
			f, inst := sc.inspect(bounded, &slots[i])
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

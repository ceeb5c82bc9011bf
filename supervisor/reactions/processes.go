package reactions

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Processes runs commands as processes of the master, each with a lease, by which the next master finds the
// remaining processes if this one is killed.
type Processes struct {
	Launcher   launcher.Launcher
	RuntimeDir string // holds the leases
}

var errNoProgram = errors.New("the rule has no program")

// Run runs the command of a rule with the rights of its user.
func (p Processes) Run(ctx context.Context, r Rule, id string, input []byte) (oneshot.Ran, error) {
	if len(r.Run) == 0 {
		return oneshot.Ran{}, errNoProgram
	}
	path, err := unit.LookUp(r.Run[0])
	if err != nil {
		return oneshot.Ran{}, err
	}
	if path, err = filepath.Abs(path); err != nil { // the command runs in another folder
		return oneshot.Ran{}, fmt.Errorf("find the program: %w", err)
	}
	lease, err := p.Launcher.Lease(id)
	if err != nil {
		return oneshot.Ran{}, err
	}
	defer func() { _ = lease.Close() }() // the command may not have been started
	return p.Launcher.Run(ctx, launcher.Command{
		Path: path, Args: r.Run[1:], Dir: r.Dir, Attributes: process.Attributes{User: r.User},
		Lease: lease, Input: input,
	}, id, launcher.NewToken())
}

// clockStep is how much the clock may have been set back since the start of a command, so that it is still found.
const clockStep = time.Minute

// Sweep kills what an earlier master has left of its commands, which ran as this user or one of those of the rules.
// The scan of a recovery finds only processes that have kept their environment.
func (p Processes) Sweep(ctx context.Context, rules []Rule) error {
	uids := map[uint32]bool{uint32(max(os.Geteuid(), 0)): true} //nolint:gosec // it is -1 on Windows only
	for _, r := range rules {
		if rights, err := (process.Attributes{User: r.User}).Resolve(); err == nil {
			uids[rights.Account.UID] = true
		}
	}
	var errs []error
	for slot := range MaxRunning {
		path := launcher.LeasePath(p.RuntimeDir, ID(slot))
		lease, err := process.LeaseID(path)
		if err != nil {
			continue // no command has run there
		}
		if held, err := process.LeaseHeld(path, lease); err != nil || !held {
			continue
		}
		rec := records.Instance{Lease: lease}
		if info, err := os.Stat(path); err == nil {
			rec.StartTicks = process.StartTicks(max(process.BootTime()-time.Since(info.ModTime())-clockStep, 0))
		}
		for uid := range uids {
			rec.UID = uid
			bounded, cancel := context.WithTimeout(ctx, launcher.KillWait)
			left, err := p.Launcher.Sweep(bounded, ID(slot), rec)
			cancel()
			if err == nil && len(left) > 0 {
				err = fmt.Errorf("%d processes could not be killed, the first is %d", len(left), left[0].PID)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

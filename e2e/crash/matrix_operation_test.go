//go:build e2e && crash && linux

package crash

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/migrations"
)

// operation is something that a master does, and during which it is killed. It starts with two running workers and
// a master at rest.
type operation struct {
	name string
	// fresh: it starts from an empty state, and each trial needs its own rig.
	fresh bool
	// life is the number of trials that one rig can serve, 0 for many: a worker's backoff doubles with each death.
	life int
	file bool // the masters read a file of units
	// restart and further are parts of that file: see [rig].
	restart, further string
	gated            bool // the file has two units, of which one depends on the other
	hooks            bool // the unit has hooks; with file only
	events           bool // the masters run commands for events; with file only
	scheduled        bool // the file has a unit with a schedule
	registry         bool // the masters serve the module registry, where the workers publish themselves; with file only
	flags            []string
	environ          []string
	habit            string // of the workers, "plain" if empty: see testdata/unit
	// prepare brings the rig into the initial state. If the operation starts a master, prepare leaves none running;
	// otherwise it leaves the present one.
	prepare func(r *rig) error
	// launched: the operation is part of a master's start.
	launched bool
	// begin begins any other operation, and rest returns nil once it is done: before are the moments that the
	// master had passed when it began, now those that it has passed since.
	begin func(r *rig) error
	rest  func(r *rig, before, now map[string]int) error
	// command: the operation is a user's command while no master runs.
	command func(r *rig) []string
	cgroups bool
	onDisk  bool // the state is on a disk, not in memory
	// linger is how long acts may follow that belong to the operation.
	linger func(at moment) time.Duration
	// mayEnd reports which workers the operation stops.
	mayEnd func(worker string) bool
	// left checks the processes that the first kill has left.
	left func(o offline) error
	// changed makes an operator's changes between the operation and the recovery.
	changed func(r *rig)
	// after restores the state in which the next trial can start.
	after func(r *rig) error
}

func noneEnds(string) bool { return false }

func allEnd(string) bool { return true }

// workersOfATrial is the number of workers in one trial: enough for one to be processed while the other one is not.
const workersOfATrial = 2

// withAChild is a worker that leaves a descendant behind when it is killed.
const withAChild = "plain+child"

func immediately(_ *rig, _, _ map[string]int) error { return nil }

func never(_ *rig, _, _ map[string]int) error { return errors.New("the master has not ended") }

func signals(s syscall.Signal) func(r *rig) error {
	return func(r *rig) error { return r.masters.signal(s) }
}

// ends returns a function that ends one of the workers, in turn.
func ends(s unix.Signal) func(r *rig) error {
	return func(r *rig) error {
		r.turn++
		return r.workers.end(fmt.Sprintf("worker-%d", r.turn%workersOfATrial), s)
	}
}

func restarted(r *rig, before, now map[string]int) error {
	if now["after-withdraw"] == before["after-withdraw"] || now["after-exit-record"] == before["after-exit-record"] {
		return errors.New("the worker's end was not noticed")
	}
	return r.atRest(0)
}

func repaired(_ *rig, before, now map[string]int) error {
	if now["after-repair"] == before["after-repair"] {
		return errors.New("the state was not written anew")
	}
	return nil
}

// released is the schema version of this release.
var released = migrations.Current()

// laterSteps is the number of migrations that follow the release in the operation "migration".
const laterSteps = 2

//go:build e2e && crash && linux

package crash

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/migrations"
)

// operation is something that a master does, and during which it is killed. It starts with two running workers and
// a master at rest.
type operation struct {
	name string
	// fresh: it starts from an empty state, and each trial needs its own rig.
	fresh bool
	// life is the number of trials that one rig can serve, 0 for many: a worker's backoff doubles with each death.
	life    int
	flags   []string
	environ []string
	habit   string // of the workers, "plain" if empty: see testdata/unit
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
	// linger is how long acts may follow that belong to the operation.
	linger func(at moment) time.Duration
	// mayEnd reports which workers the operation stops.
	mayEnd func(worker string) bool
	// changed makes an operator's changes between the operation and the recovery.
	changed func(r *rig)
	// after restores the state in which the next trial can start.
	after func(r *rig) error
}

func noneEnds(string) bool { return false }
func allEnd(string) bool   { return true }

// workersOfATrial is the number of workers in one trial: enough for one to be processed while the other one is not.
const workersOfATrial = 2

// withAChild is a worker that leaves a descendant behind when it is killed.
const withAChild = "plain+child"

// operations returns the columns of the matrix.
func operations() []*operation {
	ops := []*operation{
		{name: "first start", fresh: true, launched: true},
		{
			name: "request", begin: requests, rest: immediately, linger: untilTheCountIsFolded,
		},
		{
			name: "request, interval", flags: []string{"--sync", "interval"}, begin: requests,
			rest: immediately, linger: untilTheCountIsFolded,
		},
		{
			name: "request with an id", begin: markedRequests, rest: immediately,
			linger: untilTheCountIsFolded, after: sentAgain,
		},
		{
			name: "request with an id, interval", flags: []string{"--sync", "interval"}, begin: markedRequests,
			rest: immediately, linger: untilTheCountIsFolded, after: sentAgain,
		},
		{name: "worker exits", life: 10, begin: ends(unix.SIGTERM), rest: restarted},
		{name: "worker crashes", life: 10, habit: withAChild, begin: ends(unix.SIGKILL), rest: restarted},
		{name: "restart by policy", life: 8, launched: true, prepare: leftInBackoff},
		{
			name: "surplus", life: 12, launched: true, mayEnd: theSecondEnds, prepare: fewer,
			after: func(r *rig) error {
				err := r.kill()
				before, err2 := r.inspect(noneEnds)
				r.count = workersOfATrial
				return errors.Join(err, err2, r.recovered(before))
			},
		},
		{
			name: "surplus, taken back", life: 12, launched: true, mayEnd: theSecondEnds,
			prepare: fewer, changed: func(r *rig) { r.count = workersOfATrial },
		},
		{name: "shutdown", mayEnd: allEnd, begin: signals(syscall.SIGTERM), rest: never},
		{name: "detach", begin: signals(syscall.SIGUSR1), rest: never},
		{
			name: "migration", launched: true, environ: []string{fmt.Sprint("HSU_LATER_STEPS=", laterSteps)},
			prepare: ofAnOlderSchema,
		},
		{name: "repair", begin: failToSync, rest: repaired},
		{name: "recovery of survivors", launched: true, prepare: func(r *rig) error { return r.kill() }},
		{name: "recovery of dead ones", life: 10, launched: true, prepare: allDead},
		{name: "recovery of what dead ones leave", life: 10, habit: withAChild, launched: true, prepare: allDead},
		{name: "recovery of a half-started one", life: 10, launched: true, prepare: halfStarted},
		{name: "recovery beside a decoy", life: 10, launched: true, prepare: besideADecoy},
	}
	return slices.Concat(ops, operationsOfTheGateway(), operationsOnTheState(), operationsOnCgroups())
}

func theSecondEnds(worker string) bool { return worker == "worker-1" }

func fewer(r *rig) error {
	r.count = workersOfATrial - 1
	return r.kill()
}

// requests are answered one after another, so that each has its own count record: the number of requests that share
// a record would vary.
func requests(r *rig) error {
	for range 3 {
		r.crowd(1)
	}
	return nil
}

// markedRequests sends requests that may be sent again, between others that may not.
func markedRequests(r *rig) error {
	r.crowdMarked(1)
	r.crowd(1)
	r.crowdMarked(1)
	return nil
}

// sentAgain resends every request that may be sent again until it is answered. Then each of these was counted
// exactly once, so that the count is exact except for other unanswered requests.
func sentAgain(r *rig) error {
	if err := r.resend(); err != nil {
		return err
	}
	state, err := r.ask()
	if err != nil {
		return err
	}
	// Requests that were acknowledged before get the same answer, and are not counted again.
	r.calls.mu.Lock()
	marked := slices.Sorted(maps.Keys(r.calls.marked))
	r.calls.mu.Unlock()
	for _, id := range marked[max(0, len(marked)-4):] {
		ctx, cancel := brief()
		err := r.sendMarked(ctx, id)
		cancel()
		if err != nil {
			return fmt.Errorf("request %s, acknowledged and sent again: %w", id, err)
		}
	}
	again, err := r.ask()
	if err != nil {
		return err
	}
	if again.GetProcessedCount() != state.GetProcessedCount() {
		return fmt.Errorf("processed_count is %d, and was %d before what was acknowledged was sent again",
			again.GetProcessedCount(), state.GetProcessedCount())
	}
	return r.calls.check(r.notes, again.GetProcessedCount())
}

func immediately(_ *rig, _, _ map[string]int) error { return nil }

func never(_ *rig, _, _ map[string]int) error { return errors.New("the master has not ended") }

// untilTheCountIsFolded waits for the commit that writes the count into state.db, if that is the moment.
func untilTheCountIsFolded(at moment) time.Duration {
	if p := at.point(); at == (moment{}) || p == crashpoint.Commit || p == crashpoint.CountSync {
		return 1300 * time.Millisecond
	}
	return 50 * time.Millisecond
}

func signals(s syscall.Signal) func(r *rig) error {
	return func(r *rig) error { return r.signal(s) }
}

// signal sends a signal to an armed master. A commit of something else may have been its moment, and ended it.
func (r *rig) signal(s syscall.Signal) error {
	if err := r.master.cmd.Process.Signal(s); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// ends returns a function that ends one of the workers, in turn.
func ends(s unix.Signal) func(r *rig) error {
	return func(r *rig) error {
		r.turn++
		return r.end(fmt.Sprintf("worker-%d", r.turn%workersOfATrial), s)
	}
}

func restarted(r *rig, before, now map[string]int) error {
	if now["after-withdraw"] == before["after-withdraw"] || now["after-exit-record"] == before["after-exit-record"] {
		return errors.New("the worker's end was not noticed")
	}
	return r.atRest(0)
}

// dies has the running master killed at the moment, in the course of begin's operation.
func dies(r *rig, at moment, begin func(*rig) error) error {
	if err := errors.Join(r.arm(at), begin(r)); err != nil {
		return err
	}
	return errors.Join(r.buried(true), r.soundAgain())
}

func leftInBackoff(r *rig) error {
	return dies(r, moment{crashpoint.ExitRecord.After(), 1}, ends(unix.SIGKILL))
}

func halfStarted(r *rig) error {
	return dies(r, moment{crashpoint.Fork.After(), 1}, ends(unix.SIGKILL))
}

func allDead(r *rig) error {
	err := r.kill()
	for i := range workersOfATrial {
		err = errors.Join(err, r.end(fmt.Sprintf("worker-%d", i), unix.SIGKILL))
	}
	return errors.Join(err, r.gone())
}

func besideADecoy(r *rig) error {
	err := errors.Join(r.kill(), ends(unix.SIGKILL)(r), r.gone())
	return errors.Join(err, r.plant(fmt.Sprintf("worker-%d", r.turn%workersOfATrial)))
}

// released is the schema version of this release, and laterSteps the number of steps that follow.
var released = migrations.Current()

const laterSteps = 2

// ofAnOlderSchema downgrades the state to schema version 1: the masters of this operation have migration steps
// after those of the release.
func ofAnOlderSchema(r *rig) error {
	if err := r.kill(); err != nil {
		return err
	}
	return r.change(func(tx *bolt.Tx) error {
		first := migrations.Buckets(1)
		var newer [][]byte
		if err := tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
			if !slices.ContainsFunc(first, func(known []byte) bool { return bytes.Equal(known, name) }) {
				newer = append(newer, slices.Clone(name))
			}
			return nil
		}); err != nil {
			return err
		}
		for _, name := range newer {
			if err := tx.DeleteBucket(name); err != nil {
				return err
			}
		}
		return tx.Bucket(migrations.BucketMeta).Put(migrations.KeyVersion, binary.BigEndian.AppendUint64(nil, 1))
	})
}

// failToSync makes a request fail because the disk does not accept it. The state is then rewritten.
func failToSync(r *rig) error {
	if err := r.fault(string(crashpoint.CountSync), "EIO"); err != nil {
		return err
	}
	r.crowd(1)
	return r.fault(string(crashpoint.CountSync), "")
}

func repaired(_ *rig, before, now map[string]int) error {
	if now["after-repair"] == before["after-repair"] {
		return errors.New("the state was not written anew")
	}
	return nil
}

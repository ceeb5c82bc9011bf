//go:build e2e && crash && linux

package crash

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/migrations"
)

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
			after: asBefore,
		},
		{
			name: "surplus, taken back", life: 12, launched: true, mayEnd: theSecondEnds,
			prepare: fewer, changed: func(r *rig) { r.workers.count = workersOfATrial },
		},
		{name: "shutdown", mayEnd: allEnd, begin: signals(syscall.SIGTERM), rest: never},
		{name: "detach", begin: signals(syscall.SIGUSR1), rest: never},
		{name: "shutdown by command", mayEnd: allEnd, begin: shutsDown(false), rest: never},
		{name: "detach by command", begin: shutsDown(true), rest: never},
		{
			name: "migration", launched: true, environ: []string{fmt.Sprint("HSU_LATER_STEPS=", laterSteps)},
			prepare: ofAnOlderSchema,
		},
		{name: "repair", begin: failToSync, rest: repaired},
		{name: "recovery of survivors", launched: true, prepare: func(r *rig) error { return r.masters.kill() }},
		{name: "recovery of dead ones", life: 10, launched: true, prepare: allDead},
		{name: "recovery of what dead ones leave", life: 10, habit: withAChild, launched: true, prepare: allDead},
		{name: "recovery of a half-started one", life: 10, launched: true, prepare: halfStarted},
		{name: "recovery beside a decoy", life: 10, launched: true, prepare: besideADecoy},
	}
	return slices.Concat(ops, operationsWithDependencies(), operationsOnTheSet(), operationsOnUnits(),
		operationsOfVerbs(), operationsOfRestarts(), operationsOnTheProgram(), operationsOnEssentials(),
		operationsOfTheGateway(), operationsOnTheState(), operationsOnCgroups(), operationsWithHelpers(),
		operationsWithHooks(), operationsWithEventCommands(), operationsWithNotifications(), operationsOfModules(),
		operationsOnLogs(), operationsOfSchedules())
}

func theSecondEnds(worker string) bool { return worker == "worker-1" }

func fewer(r *rig) error {
	r.workers.count = workersOfATrial - 1
	return r.masters.kill()
}

// shutsDown returns a function that has an operator end the master.
func shutsDown(detach bool) func(*rig) error {
	return func(r *rig) error {
		ctx, cancel := brief()
		defer cancel()
		return r.admin.shutdown(ctx, detach)
	}
}

// requests are answered one after another, so that each has its own count record: the number of requests that share
// a record would vary.
func requests(r *rig) error {
	for range 3 {
		r.calls.crowd(1)
	}
	return nil
}

// markedRequests sends requests that may be sent again, between others that may not.
func markedRequests(r *rig) error {
	r.calls.crowdMarked(1)
	r.calls.crowd(1)
	r.calls.crowdMarked(1)
	return nil
}

// sentAgain resends every request that may be sent again until it is answered. Then each of these was counted
// exactly once, so that the count is exact except for other unanswered requests.
func sentAgain(r *rig) error {
	if err := r.calls.resend(); err != nil {
		return err
	}
	state, err := r.admin.ask()
	if err != nil {
		return err
	}
	// Requests that were acknowledged before get the same answer, and are not counted again.
	r.calls.mu.Lock()
	marked := slices.Sorted(maps.Keys(r.calls.marked))
	r.calls.mu.Unlock()
	for _, id := range marked[max(0, len(marked)-4):] {
		ctx, cancel := brief()
		err := r.calls.sendMarked(ctx, id)
		cancel()
		if err != nil {
			return fmt.Errorf("request %s, acknowledged and sent again: %w", id, err)
		}
	}
	again, err := r.admin.ask()
	if err != nil {
		return err
	}
	if again.GetProcessedCount() != state.GetProcessedCount() {
		return fmt.Errorf("processed_count is %d, and was %d before what was acknowledged was sent again",
			again.GetProcessedCount(), state.GetProcessedCount())
	}
	return r.calls.check(r.notes, again.GetProcessedCount())
}

// untilTheCountIsFolded waits for the commit that writes the count into state.db, if that is the moment.
func untilTheCountIsFolded(at moment) time.Duration {
	if p := at.point(); at == (moment{}) || p == crashpoint.Commit || p == crashpoint.CountSync {
		return 1300 * time.Millisecond
	}
	return 50 * time.Millisecond
}

// dies has the running master killed at the moment, in the course of begin's operation.
func dies(r *rig, at moment, begin func(*rig) error) error {
	if err := errors.Join(r.masters.arm(at), begin(r)); err != nil {
		return err
	}
	return errors.Join(r.masters.buried(true), r.masters.soundAgain())
}

func leftInBackoff(r *rig) error {
	return dies(r, moment{crashpoint.ExitRecord.After(), 1}, ends(unix.SIGKILL))
}

func halfStarted(r *rig) error {
	return dies(r, moment{crashpoint.Fork.After(), 1}, ends(unix.SIGKILL))
}

func allDead(r *rig) error {
	err := r.masters.kill()
	for i := range workersOfATrial {
		err = errors.Join(err, r.workers.end(fmt.Sprintf("worker-%d", i), unix.SIGKILL))
	}
	return errors.Join(err, r.workers.gone())
}

func besideADecoy(r *rig) error {
	err := errors.Join(r.masters.kill(), ends(unix.SIGKILL)(r), r.workers.gone())
	return errors.Join(err, r.plant(fmt.Sprintf("worker-%d", r.turn%workersOfATrial)))
}

// ofAnOlderSchema downgrades the state to schema version 1: the masters of this operation have migration steps
// after those of the release.
func ofAnOlderSchema(r *rig) error {
	if err := r.masters.kill(); err != nil {
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
	if err := r.masters.fault(string(crashpoint.CountSync), "EIO"); err != nil {
		return err
	}
	r.calls.crowd(1)
	return r.masters.fault(string(crashpoint.CountSync), "")
}

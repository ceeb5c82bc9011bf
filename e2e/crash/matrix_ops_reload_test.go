//go:build e2e && crash && linux

package crash

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Operations on the wanted set while the master runs: it reads its file again.

func operationsOnTheSet() []*operation {
	another := func(name, further string) *operation {
		return &operation{
			// The next master replaces the workers that were not replaced yet.
			name: name, file: true, further: further, life: 12, mayEnd: allEnd,
			begin: reloadsAnotherCommand, rest: untilReplaced,
		}
	}
	return []*operation{
		{
			name: "reload, one more", file: true, life: 12, begin: reloads(workersOfATrial + 1),
			rest: untilAtRest(0), after: asBefore,
		},
		{
			name: "reload, one less", file: true, life: 12, begin: reloads(workersOfATrial - 1),
			mayEnd: theSecondEnds, rest: untilAtRest(1), after: asBefore,
		},
		another("reload, another command", ""),
		another("reload, two at once", "    update: {max_unavailable: 2}\n"),
		another("reload, start first", "    update: {order: start-first}\n"),
		{
			name: "reload, watch a stranger", file: true, begin: watches(true), rest: untilFound,
			after: func(r *rig) error { return rewatch(r, "") },
		},
		{
			name: "reload, do not watch it any more", file: true,
			prepare: func(r *rig) error { return rewatch(r, r.watchedUnits()) },
			begin:   watches(false), rest: untilFound,
		},
	}
}

// watches returns a function that has the master watch the decoy from now on, or not any more.
func watches(is bool) func(r *rig) error {
	return func(r *rig) error {
		r.mayWatch, r.watches = true, ""
		if is {
			r.watches = r.watchedUnits()
		}
		return errors.Join(r.writeFile(), r.masters.signal(syscall.SIGHUP))
	}
}

// untilFound returns nil when the master has recorded the process found, or that it watches none any more.
func untilFound(r *rig, before, now map[string]int) error {
	if now["after-found-record"] == before["after-found-record"] {
		return errors.New("nothing was recorded about the stranger")
	}
	return r.atRest(0)
}

func reloadsAnotherCommand(r *rig) error {
	r.turn++
	r.workers.refilled = true
	return reloads(workersOfATrial)(r)
}

func untilReplaced(r *rig, before, now map[string]int) error {
	if n := now["after-publish"] - before["after-publish"]; n < workersOfATrial {
		return fmt.Errorf("%d of %d workers are replaced", n, workersOfATrial)
	}
	const records = 2 // at the begin and at the end
	if n := now["after-unit-record"] - before["after-unit-record"]; n < records {
		return errors.New("the end of the rollout is not recorded")
	}
	if n := now["after-removal"] - before["after-removal"]; strings.Contains(r.further, "start-first") && n == 0 {
		return errors.New("the spare worker is not removed")
	}
	return r.atRest(0)
}

// rewatch has the next master watch these units.
func rewatch(r *rig, units string) error {
	err := r.masters.kill()
	before, err2 := r.inspect(noneEnds)
	r.watches, r.mayWatch = units, true
	return errors.Join(err, err2, r.recovered(before))
}

// reloads returns a function that has the master run this number of workers from now on.
func reloads(count int) func(r *rig) error {
	return func(r *rig) error {
		r.workers.count = count
		return errors.Join(r.writeFile(), r.masters.signal(syscall.SIGHUP))
	}
}

func untilAtRest(removals int) func(r *rig, before, now map[string]int) error {
	return func(r *rig, before, now map[string]int) error {
		if n := now["after-removal"] - before["after-removal"]; n < removals {
			return fmt.Errorf("%d of %d workers are removed", n, removals)
		}
		return r.atRest(0)
	}
}

// asBefore has the next master run the workers that each trial starts with.
func asBefore(r *rig) error {
	err := r.masters.kill()
	before, err2 := r.inspect(noneEnds)
	r.workers.count = workersOfATrial
	r.workers.look(before)
	err = errors.Join(err, err2, r.recovered(before))
	for id, was := range r.workers.ledger {
		if r.workers.isSurplus(id) && !was.removed {
			err = errors.Join(err, r.workers.forget(id))
		}
	}
	return err
}

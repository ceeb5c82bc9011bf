//go:build e2e && linux && (crash || torture)

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
)

// The model: the test's own knowledge, from /proc, from its requests and acts, and from the workers' notes. Every
// record and answer of the product is compared with it.

// offline is the state while no master runs.
type offline struct {
	snap    *records.Snapshot // nil if there is no state yet
	living  []being
	records map[string]records.Worker
}

// rollouts reports whether the next master has a rollout to continue.
func (o offline) rollouts() bool {
	return o.snap != nil && slices.ContainsFunc(o.snap.Units, func(u records.Unit) bool { return u.Rollout != nil })
}

// isReplaced reports whether the next master replaces the worker, because its unit says so.
func (o offline) isReplaced(worker string) bool {
	return o.rollouts() && slices.ContainsFunc(o.snap.Units, func(u records.Unit) bool {
		return u.Rollout != nil && slices.ContainsFunc(u.Rollout.Workers, func(t records.RolloutWorker) bool {
			return t.ID == worker && o.records[worker].Incarnation <= t.Incarnation
		})
	})
}

// inspect inspects the state and the processes that a dead master has left, and checks everything that must hold at
// any moment. mayEnd reports which workers the operation may have stopped.
func (r *rig) inspect(mayEnd func(worker string) bool) (offline, error) {
	o := offline{records: map[string]records.Worker{}, living: r.workers.scan()}
	snap, err := readState(r.state)
	_, damaged := errors.AsType[*store.DamagedError](err)
	switch {
	case errors.Is(err, fs.ErrNotExist), damaged && r.damaged:
	case err != nil:
		return o, fmt.Errorf("the state after a crash: %w", err)
	case !r.damaged:
		o.snap = &snap
	}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	noted, err := r.workers.instancesNoted()
	if err != nil {
		fail("%w", err)
	}
	switch {
	case r.damaged:
	case o.snap != nil:
		for key, err := range snap.Bad {
			fail("record %s: %w", key, err)
		}
		r.workers.scaled(snap.Units, fail)
		tokens, ports := map[string]string{}, map[int]string{}
		for _, w := range snap.Workers {
			if w.Unmanaged() {
				r.checkWatched(w, fail)
				continue
			}
			if r.scheduled != nil && w.ID == lateWorker {
				r.scheduled.check(w, fail)
				continue
			}
			o.records[w.ID] = w
			r.workers.checkRecord(w, noted[w.ID], fail)
			if w.Instance == nil {
				continue
			}
			if other := tokens[w.Instance.Token]; other != "" {
				fail("%s and %s have the same token", w.ID, other)
			}
			if other := ports[w.Instance.Port]; other != "" && w.Instance.Port > 0 {
				fail("%s and %s have the same port", w.ID, other)
			}
			tokens[w.Instance.Token], ports[w.Instance.Port] = w.ID, w.ID
		}
		if err := r.calls.check(r.notes, snap.Processed); err != nil {
			fail("after a crash: %w", err)
		}
		r.registrations.check(r.registrations.recorded(snap.Registered, fail), true, fail)
		if problems, err := store.Check(r.state); err != nil || !problems.OK() {
			fail("the state after a crash: %v, %w", problems, err)
		}
	case len(o.living) > 0:
		fail("there is no state, and there are workers: %+v", o.living)
	}
	alive := map[string]bool{}
	for id, leaders := range leadersOf(slices.Concat(o.living, r.workers.commands)) {
		if len(leaders) > 1 {
			fail("%s lives twice: %+v", id, leaders)
		}
	}
	for _, b := range o.living {
		alive[b.token] = true
		rec := o.records[b.worker]
		if r.damaged {
			continue
		}
		if rec.Instance == nil || rec.Instance.Token != b.token {
			fail("no record names a living process: %+v, the worker's is %+v, its instance %+v", b, rec, rec.Instance)
		} else if b.leader && rec.Instance.PID != 0 && rec.Instance.PID != b.pid {
			fail("%s is recorded as process %d and is %d", b.worker, rec.Instance.PID, b.pid)
		} else if i := rec.Instance; b.leader && i.OwnPort && i.Port != 0 && i.Port != b.port {
			fail("%s is recorded with port %d and has chosen %d", b.worker, i.Port, b.port)
		}
	}
	for token, b := range r.workers.beings {
		expected := r.workers.ended[token] || r.workers.excused[token] || b.doomed
		if !alive[token] && !expected && !mayEnd(b.worker) && !r.workers.lostPort(b) {
			fail("%s has died with its master, or by it: %+v", b.worker, b)
		}
	}
	for id, was := range r.workers.ledger {
		_, there := o.records[id]
		switch {
		case r.damaged:
		case there && was.removed:
			was.removed = false
			r.workers.ledger[id] = was
		case there || was.removed:
		case r.workers.isSurplus(id):
			if err := r.workers.forget(id); err != nil {
				fail("%w", err)
			}
		default:
			fail("the record of %s is gone", id)
		}
	}
	r.workers.look(o)
	r.workers.left = map[string]bool{}
	for _, b := range r.workers.commands {
		r.workers.left[b.token] = true
	}
	r.rolls = o.rollouts()
	if err := r.secretSpilled(); err != nil {
		fail("%w", err)
	}
	return o, errors.Join(errs...)
}

// readState reads the state of a master that has just died. A child that it had forked may hold its lock until the
// child executes another program.
func readState(dir string) (records.Snapshot, error) {
	var snap records.Snapshot
	var err error
	_ = harness.Poll(func() error { // its error is that of the last reading
		if snap, err = store.ReadSnapshot(dir); errors.As(err, new(*store.LockedError)) {
			return err
		}
		return nil
	})
	return snap, err
}

// secretSpilled fails if a file of the state holds a value of the environment.
func (r *rig) secretSpilled() error {
	for _, name := range []string{"state.db", "counter.dat", "admin.path"} {
		text, err := os.ReadFile(filepath.Join(r.state, name))
		if err == nil && bytes.Contains(text, []byte(r.masters.secret)) {
			return fmt.Errorf("%s holds a secret", name)
		}
	}
	return nil
}

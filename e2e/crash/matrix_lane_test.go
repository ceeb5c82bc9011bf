//go:build e2e && crash && linux

package crash

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// lane runs trials one after another, on the same rig for as long as possible.
type lane struct {
	*matrix
	rig *rig
	op  *operation
	age int
}

// ready brings a rig into the state that the operation starts from.
func (l *lane) ready(op *operation) error {
	if l.rig != nil && (l.op != op || op.fresh || l.age >= cmp.Or(op.life, 40)) {
		l.retire()
	}
	l.age++
	if l.rig != nil {
		return nil
	}
	base := l.base
	if op.onDisk {
		base = l.disk
	}
	r, err := newRig(l.t, base, workersOfATrial)
	if err != nil {
		return err
	}
	l.rig, l.op, l.age = r, op, 0
	r.flags, r.masters.environ = append(r.flags, op.flags...), op.environ
	r.fromFile, r.restart, r.further, r.gated = op.file, op.restart, op.further, op.gated
	if op.hooks {
		if err := r.addHooks(); err != nil {
			return err
		}
	}
	if op.scheduled {
		if err := r.addScheduled(); err != nil {
			return err
		}
	}
	if op.events {
		if err := r.addEventCommands(); err != nil {
			return err
		}
	}
	r.arguments = []string{"-as", cmp.Or(op.habit, "plain"), "-notes", r.notes, "-record", r.record, "-echo"}
	if op.registry {
		socket := filepath.Join(r.dir, "registry.sock")
		r.always = []string{"--registry", "unix://" + socket}
		r.arguments = append(r.arguments, "-registry", socket, "-patient")
	}
	if op.cgroups {
		if r.masters.cgroup, err = harness.DelegateCgroup(); err != nil {
			return err
		}
	}
	if op.fresh {
		return nil
	}
	if err := r.employ(harness.FreePort(l.t)); err != nil {
		return err
	}
	if err := r.recovered(offline{}); err != nil {
		return err
	}
	// A backup as old as the first start would not contain the restart that a taken port costs.
	for _, was := range r.workers.ledger {
		if was.portTaken > 0 {
			l.retire()
			return l.ready(op)
		}
	}
	return nil
}

// retire ends the lane's rig in an orderly way, and checks that nothing is left.
func (l *lane) retire() {
	if l.rig == nil {
		return
	}
	if l.rig.masters.running != nil {
		if err := l.rig.finish(); err != nil {
			l.fail("the orderly end after many trials of "+l.op.name, err, l.rig)
		} else if err := l.rig.masters.leaveCgroup(false); err != nil {
			l.fail("the orderly end after many trials of "+l.op.name, err, l.rig)
		}
	}
	l.scrap()
}

func (l *lane) scrap() {
	l.rig.destroy()
	_ = l.rig.masters.leaveCgroup(true)
	l.rig = nil
}

// try runs one trial and leaves the rig ready for the next, or none.
func (l *lane) try(tr trial) outcome {
	o := outcome{trial: tr}
	if err := l.ready(tr.op); err != nil {
		o.err = fmt.Errorf("before the trial: %w", err)
	} else {
		o.err = l.attempt(&o)
	}
	if o.err != nil {
		l.fail(tr.String(), o.err, l.rig)
		l.scrap()
		return o
	}
	o.recovery = l.rig.recovery
	return o
}

// attempt runs the operation with its kill, each recovery with its own kill, and then an undisturbed recovery.
func (l *lane) attempt(o *outcome) error {
	r, op := l.rig, o.op
	before, err := l.operate(o)
	if err != nil {
		return err
	}
	for i, at := range o.kills {
		if i == 0 || o.reached < i {
			continue
		}
		if err := l.strangers(before, i); err != nil {
			return err
		}
		if err := r.launch(at); err != nil {
			return err
		}
		removals := r.workers.surplus(before)
		killed, err := l.killed(func() error { return r.atRest(removals) }, 150*time.Millisecond)
		if err != nil {
			return err
		}
		if killed {
			o.reached++
		}
		if before, err = r.inspect(noneEnds); err != nil {
			return fmt.Errorf("after kill %d: %w", i+1, err)
		}
	}
	if err := l.strangers(before, len(o.kills)); err != nil {
		return err
	}
	if err := r.recovered(before); err != nil {
		return err
	}
	if op.after != nil {
		recovery := r.recovery
		if err := op.after(r); err != nil {
			return fmt.Errorf("after the trial: %w", err)
		}
		r.recovery = recovery
	}
	return nil
}

// operate runs the operation and its kill, and inspects the result.
func (l *lane) operate(o *outcome) (before offline, err error) {
	r, op := l.rig, o.op
	at := moment{}
	if len(o.kills) > 0 {
		at = o.kills[0]
	}
	if op.prepare != nil {
		if err := op.prepare(r); err != nil {
			return before, fmt.Errorf("prepare: %w", err)
		}
	}
	mayEnd := op.mayEnd
	if mayEnd == nil {
		mayEnd = noneEnds
	}
	var rest func() error
	passed := map[string]int{}
	opRest := func() error {
		now, err := r.masters.passed()
		if err == nil && op.rest != nil {
			err = op.rest(r, passed, now)
		}
		return err
	}
	if r.masters.running == nil {
		if before, err = r.inspect(mayEnd); err != nil {
			return before, fmt.Errorf("before it: %w", err)
		}
	}
	switch {
	case op.command != nil:
		rest = func() error { return errors.New("the command has not ended") }
		err = r.masters.execute(at, op.command(r))
	case op.launched:
		removals := r.workers.surplus(before)
		rest = func() error { return cmp.Or(r.atRest(removals), opRest()) }
		err = r.launch(at)
	default:
		if passed, err = r.masters.passed(); err != nil {
			return before, err
		}
		rest = opRest
		if at != (moment{}) {
			err = r.masters.arm(at)
		}
		if err == nil {
			err = op.begin(r)
		}
	}
	if err != nil {
		return before, fmt.Errorf("begin: %w", err)
	}
	linger := 150 * time.Millisecond
	if op.linger != nil {
		linger = op.linger(at)
	}
	killed, err := l.killed(rest, linger)
	r.underWay.Wait()
	if err != nil {
		return before, err
	}
	if killed {
		o.reached++
	}
	if o.passed, err = r.masters.passed(); err != nil {
		return before, err
	}
	for name, n := range passed {
		if o.passed[name] -= n; o.passed[name] == 0 {
			delete(o.passed, name)
		}
	}
	if err := r.masters.soundAgain(); err != nil {
		return before, err
	}
	if before, err = r.inspect(mayEnd); err != nil {
		return before, fmt.Errorf("after the first kill: %w", err)
	}
	if err := r.checkBackups(); err != nil {
		return before, fmt.Errorf("after the first kill: %w", err)
	}
	if op.left != nil {
		if err := op.left(before); err != nil {
			return before, fmt.Errorf("after the first kill: %w", err)
		}
	}
	if op.changed != nil {
		op.changed(r)
		r.workers.look(before)
	}
	return before, nil
}

// killed waits for the master to be killed at its moment. A master that comes to rest before that is killed too,
// but does not count; a master may also end by itself.
func (l *lane) killed(rest func() error, linger time.Duration) (bool, error) {
	r := l.rig
	ended, err := r.masters.await("the master to be killed, or to come to rest", rest)
	if err != nil {
		return false, err
	}
	for deadline := time.Now().Add(linger); !ended && time.Now().Before(deadline); ended = r.masters.running.over() {
		r.masters.pause(time.Until(deadline))
	}
	if !ended {
		return false, r.masters.kill()
	}
	killed := !r.masters.running.cmd.ProcessState.Exited()
	return killed, r.masters.buried(killed)
}

// strangers puts the decoy in the place of a dead process that a record still names, in half of the trials.
func (l *lane) strangers(before offline, stage int) error {
	r := l.rig
	alive := map[string]bool{}
	for _, b := range before.living {
		alive[b.token] = true
	}
	for _, id := range slices.Sorted(maps.Keys(before.records)) {
		if i := before.records[id].Instance; i != nil && i.PID != 0 && !alive[i.Token] && (l.age+stage)%2 == 0 {
			return r.plant(id)
		}
	}
	return nil
}

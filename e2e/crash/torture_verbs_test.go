//go:build e2e && torture && linux

package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/e2e/harness"
)

// Trouble by an operator: verbs on a worker and on a unit, and the upgrade of the running master. The verbs follow from
// the seed; whether a master executes them may depend on the trouble that it has.

// The acts of the operator, as the table names them. TestTorture fails if one of them never happens.
const (
	opStop       = "worker stopped by the operator"
	opStart      = "worker started by the operator"
	opRestart    = "worker restarted by the operator"
	opSignal     = "worker signalled by the operator"
	opDisable    = "unit disabled by the operator"
	opEnable     = "unit enabled by the operator"
	opUpgrade    = "upgraded"
	opDown       = "ended by command"
	opDetach     = "detached by command"
	opStartFirst = "reloaded start-first"
)

// deck returns the acts of the operator in a random order. Those that are not always possible are in it twice.
func deck(rng *rand.Rand) []string {
	acts := []string{
		opStop, opStart, opRestart, opSignal, opUpgrade, opDown, opDetach,
		opRestart, opDisable, opDisable, opEnable, opEnable, opStartFirst, opStartFirst,
	}
	rng.Shuffle(len(acts), func(i, j int) { acts[i], acts[j] = acts[j], acts[i] })
	return acts
}

// operator is what an operator has done since the last rest.
type operator struct {
	deck       []string        // the next acts
	acted      map[string]bool // workers that were restarted, or stopped and started
	restarting chan struct{}   // closed when the last restart has ended; nil if there was none
	disabled   bool            // the sleepers may be disabled
}

// haltable is the worker that the operator stops. It is none of the moody ones.
const haltable = "worker-1"

// draw returns the operator's next act.
func (o *operator) draw(rng *rand.Rand) (act string) {
	if len(o.deck) == 0 {
		o.deck = deck(rng)
	}
	act, o.deck = o.deck[0], o.deck[1:]
	return act
}

// operate has the running master execute an act of the operator.
func (v *victim) operate(act string, a int) error {
	if ended, err := v.masters.await("the master holds the state", v.holds); err != nil || ended {
		return errors.Join(err, v.reap())
	}
	switch act {
	case opStop:
		v.did(act, haltable)
		v.acts(haltable)
		v.workers.verbs.expected = true
		return v.act("stop", haltable)
	case opStart:
		v.did(act, haltable)
		return v.act("start", haltable)
	case opRestart:
		return v.restart(v.steadyWorker(a))
	case opSignal:
		worker := v.anyWorker(a)
		v.did(act, worker)
		return v.act("signal", worker)
	case opDisable, opEnable:
		return v.switchUnit(act, a)
	case opUpgrade:
		return v.upgrade(a)
	case opStartFirst:
		return v.reloadStartFirst(a)
	default:
		return v.leaveByCommand(act)
	}
}

// switchUnit disables the sleepers, and enables them again a moment later if the act is that.
func (v *victim) switchUnit(act string, a int) error {
	if !v.fromFile || v.workers.sleepers == 0 {
		return nil
	}
	v.did(act, sleeper)
	v.operator.disabled, v.workers.leastSleepers = true, 0
	err := errors.Join(v.act("disable", sleeper), v.companions.excuse())
	if act == opEnable {
		v.masters.pause(time.Duration(a%100) * time.Millisecond)
		err = errors.Join(err, v.act("enable", sleeper))
	}
	return err
}

// steadyWorker returns a wanted worker that is ready unless there is trouble.
func (v *victim) steadyWorker(n int) string {
	for i := range v.workers.count {
		if worker := fmt.Sprintf("worker-%d", (n+i)%v.workers.count); !moody(worker) {
			return worker
		}
	}
	return haltable
}

// acts allows that the worker ends.
func (v *victim) acts(worker string) {
	v.operator.acted[worker] = true
	v.workers.refilled = true
}

// act returns when the running master has begun to execute the verb, or cannot.
func (v *victim) act(verb, name string) error {
	ctx, cancel := v.whileItLives(time.Second)
	defer cancel()
	_ = v.rig.admin.act(ctx, &adminpb.ActRequest{
		Verb: verb, Names: []string{name}, Signal: "CONT", NoWait: true, Force: true,
	})
	return nil
}

// whileItLives returns a context that ends with the running master.
func (v *victim) whileItLives(limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	ended := v.masters.running.ended
	go func() {
		select {
		case <-ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// restart has the running master restart the worker, which may take until the master has got over its trouble.
func (v *victim) restart(worker string) error {
	if !v.operator.idle() {
		return nil
	}
	v.did(opRestart, worker)
	v.acts(worker)
	ctx, cancel := v.whileItLives(2 * harness.Patience)
	done := make(chan struct{})
	v.operator.restarting = done
	v.underWay.Go(func() {
		defer close(done)
		defer cancel()
		_ = v.rig.admin.act(ctx, &adminpb.ActRequest{Verb: "restart", Names: []string{worker}})
	})
	return nil
}

// idle reports whether no restart is under way.
func (o *operator) idle() bool {
	if o.restarting == nil {
		return true
	}
	select {
	case <-o.restarting:
		return true
	default:
		return false
	}
}

// upgrade has the running master replace its program by itself.
func (v *victim) upgrade(a int) error {
	if !v.operator.idle() || v.outcomes().done < v.wanted.signals {
		return nil // SIGHUP would end a program that does not handle it yet
	}
	v.did(opUpgrade, "")
	before := v.upgrades()
	ctx, cancel := v.whileItLives(harness.Patience)
	defer cancel()
	conn, err := quickDial("unix://" + string(v.rig.admin))
	if err != nil {
		return err
	}
	defer conn.Close()
	drain := time.Duration(a%100) * time.Millisecond
	stream, err := adminpb.NewAdminClient(conn).Upgrade(ctx, &adminpb.UpgradeRequest{Drain: durationpb.New(drain)})
	begun := false
	for err == nil {
		var step *adminpb.UpgradeResponse
		step, err = stream.Recv()
		begun = begun || step.GetStep() > adminpb.UpgradeResponse_CHECKING
	}
	if !begun { // it was refused, or is not to be
		return nil
	}
	_, err = v.masters.await("the end of the upgrade", func() error {
		if v.upgrades() == before {
			return errors.New("it is under way")
		}
		return nil
	})
	return err
}

// upgrades returns the number of upgrades that the running master has ended.
func (v *victim) upgrades() int {
	log, _ := os.ReadFile(v.masters.running.log)
	return strings.Count(string(log), `"msg":"master upgraded"`) + strings.Count(string(log), `"msg":"upgrade failed"`)
}

// leaveByCommand ends the master as [victim.leave] does, by a command instead of a signal.
func (v *victim) leaveByCommand(act string) error {
	v.did(act, "")
	signal, detach := syscall.SIGTERM, act == opDetach
	if detach {
		signal = syscall.SIGUSR1
	}
	return v.leaveBy(signal, func() {
		ctx, cancel := v.whileItLives(harness.Patience)
		defer cancel()
		_ = v.rig.admin.shutdown(ctx, detach)
	})
}

// resumed fails until the workers that the operator has stopped or disabled run again, and all restarts have ended.
func (v *victim) resumed(state *adminpb.State) error {
	for _, w := range state.GetWorkers() {
		if w.GetDesired() == "stopped" {
			return errors.Join(errors.New("a worker is started again"), v.act("start", w.GetId()))
		}
	}
	if v.operator.disabled {
		if !v.fromFile || v.workers.sleepers == 0 {
			return nil // the unit is none of this master's
		}
		ctx, cancel := v.whileItLives(time.Second)
		defer cancel()
		err := v.rig.admin.act(ctx, &adminpb.ActRequest{Verb: "enable", Names: []string{sleeper}, NoWait: true})
		if err != nil {
			return fmt.Errorf("enable the unit again: %w", err)
		}
		v.operator.disabled = false
	}
	if !v.operator.idle() {
		return errors.New("a restart is under way")
	}
	return nil
}

// forget is called at rest: nothing that the operator has done ends a worker from now on.
func (o *operator) forget() { o.acted, o.restarting = map[string]bool{}, nil }

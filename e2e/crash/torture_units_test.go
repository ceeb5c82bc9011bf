//go:build e2e && torture && linux

package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

// Trouble with the wanted set. A part of the masters reads a file, which changes while they run: the number of workers
// and their environment, and a second unit without a port, which comes, goes and changes too. An operator scales the
// first unit beside that.

// wanted is the part of the wanted set that is not in the model of the workers, and what the running master knows of
// the set.
type wanted struct {
	sleepers    int // of the file, even while a master runs without it
	sleeperTurn int
	startFirst  bool // a spare worker is started before one is replaced

	signals int  // to reload, to the running master
	undone  int  // reloads of that master that changed nothing, as far as they were dealt with
	stale   bool // the file has changed, and the master was not told because it was reloading
	// unsure: the operator's number of workers may have been lost or replaced. It is set again before the host is at
	// rest.
	unsure bool
	since  time.Time // of the last signal
}

func isSleeper(worker string) bool { return strings.HasPrefix(worker, sleeper+"-") }

// portless reports whether the worker is one of a unit without a port.
func portless(worker string) bool {
	unit, _, _ := strings.Cut(worker, "-")
	return unit != "worker" && unit != module && unit != loner
}

// anyWorker returns a wanted worker of any unit.
func (v *victim) anyWorker(n int) string {
	n %= v.workers.count + v.workers.sleepers + len(companionUnits)*v.workers.companions
	switch {
	case n < v.workers.count:
		return fmt.Sprintf("worker-%d", n)
	case n < v.workers.count+v.workers.sleepers:
		return fmt.Sprintf("%s-%d", sleeper, n-v.workers.count)
	}
	return companionUnits[n-v.workers.count-v.workers.sleepers] + "-0"
}

// launch starts a master with a file or without, as [rig.launch] does.
func (v *victim) launch(at moment) error {
	w := &v.wanted
	w.signals, w.undone, w.stale, w.unsure = 0, 0, false, false
	v.workers.next()
	v.mayWatch = true
	if !v.fromFile {
		v.companions.inForce = 0
	}
	v.prepareFile()
	if v.workers.sleepers == 0 {
		if err := v.companions.excuse(); err != nil {
			return err
		}
	}
	return v.rig.launch(at)
}

// next makes the number of workers that the next master wants the wanted one. The operator's number counts as long as
// the configured one is the recorded one.
func (ws *workers) next() {
	ws.count = ws.recorded.Wanted()
	if ws.recorded.Replicas != ws.configured {
		ws.count, ws.promised = ws.configured, 0
	}
	ws.least = min(ws.least, ws.count)
	ws.earlier = append(ws.earlier, ws.configured)
}

// prepareFile makes the file's part that differs from that of the crash matrix.
func (v *victim) prepareFile() {
	services, _ := json.Marshal([]string{"proto.MyBusinessService", echo.Service})
	v.further = fmt.Sprintf("    start: {timeout: 15s}\n    services: %s\n", services)
	if v.wanted.startFirst {
		v.further += "    update: {order: start-first}\n"
	}
	c := &v.companions
	if c.there && c.gatesWorks {
		v.further += fmt.Sprintf("    depends_on: {%s: ready}\n", gate)
	}
	v.workers.sleepers, v.workers.companions, v.watches = 0, 0, ""
	if v.fromFile {
		v.workers.sleepers = v.wanted.sleepers
		if c.there {
			v.workers.companions = 1
		}
		if c.watch {
			v.watches = v.watchedUnits()
		}
	}
	v.workers.leastSleepers = min(v.workers.leastSleepers, v.workers.sleepers)
	v.workers.leastCompanions = min(v.workers.leastCompanions, v.workers.companions)
	if v.workers.sleepers > 0 {
		v.further += fmt.Sprintf(`  %s:
    kind: managed
    replicas: %d
    environment: {TURN: "%s"}
    restart: {backoff: {initial: 1ms}, budget: {restarts: 1000, within: 5m}}
`, sleeper, v.workers.sleepers, v.turnOf(sleeper)) + c.keys()
	}
	v.further += c.units(v.turnOf(gate))
}

// turnOf returns the turn of the unit in the file.
func (v *victim) turnOf(unit string) string {
	if unit != "worker" {
		return fmt.Sprint(v.wanted.sleeperTurn)
	}
	return fmt.Sprint(v.turn)
}

// changeFile changes the file of the running master up to three times, and has the master read it again each time.
func (v *victim) changeFile(a, b int) error {
	for range 1 + a%3 {
		// Before the master handles signals, they end it like any program.
		if ended, err := v.masters.await("the master holds the state", v.holds); err != nil || ended {
			return errors.Join(err, v.reap())
		}
		v.change(a, b)
		v.prepareFile()
		if err := errors.Join(v.writeFile(), v.reload()); err != nil {
			return err
		}
		v.masters.pause(time.Duration(a%60) * time.Millisecond)
		a, b = a/3, b/4
	}
	return nil
}

// reloadStartFirst has the running master replace the workers, with a spare one.
func (v *victim) reloadStartFirst(a int) error {
	if !v.fromFile {
		return nil
	}
	v.turn++
	v.wanted.startFirst = true
	v.did(opStartFirst, v.turnOf("worker"))
	v.prepareFile()
	err := errors.Join(v.writeFile(), v.reload())
	v.masters.pause(time.Duration(a%100) * time.Millisecond)
	return err
}

// change changes the next content of the file.
func (v *victim) change(a, b int) {
	ws := &v.workers
	switch b % 6 {
	case 0:
		n := 3 + a%10
		v.did("reloaded with a number of workers", fmt.Sprint(n))
		if n != ws.configured {
			ws.configured, ws.count, ws.promised = n, n, 0
			ws.least, ws.earlier = min(ws.least, n), append(ws.earlier, n)
		}
	case 1:
		v.turn++
		v.wanted.startFirst = false
		v.did("reloaded with another environment", v.turnOf("worker"))
	case 2:
		v.wanted.sleepers = a % 4
		v.did("reloaded with a number of workers without a port", fmt.Sprint(v.wanted.sleepers))
	case 3:
		v.companions.there, v.companions.inForce = a%4 > 0, 0
		v.did("reloaded with companions, or without", fmt.Sprint(v.companions.there))
	case 4:
		v.companions.watch, v.mayWatch = !v.companions.watch, true
		v.did("reloaded with unmanaged units, or without", fmt.Sprint(v.companions.watch))
	default:
		v.wanted.sleeperTurn++
		v.did("reloaded with another environment without a port", v.turnOf(sleeper))
	}
}

// expectReplacements allows the end of workers that were started with another environment than that of the file,
// whichever master started them.
func (v *victim) expectReplacements() {
	v.workers.refilled = true
	for token, b := range v.workers.beings {
		unit, _, _ := strings.Cut(b.worker, "-")
		b.doomed = b.doomed || b.turn != v.turnOf(unit)
		v.workers.beings[token] = b
	}
}

// reload tells the running master to read its file again, or leaves that for later if it is just doing so: two signals
// may be one.
func (v *victim) reload() error {
	v.expectReplacements() // even a reload that is under way may read this file
	if v.outcomes().done < v.wanted.signals {
		v.wanted.stale, v.wanted.unsure = true, true
		return nil
	}
	v.wanted.signals++
	v.wanted.stale, v.wanted.since = false, time.Now()
	return v.masters.signal(syscall.SIGHUP)
}

// outcomes are the reloads that the running master has finished.
type outcomes struct {
	done int
	// undone are those that may have changed nothing. A reload that ended because a worker did not get ready has
	// changed the set.
	undone   int
	complete bool // the last one succeeded
}

func (v *victim) outcomes() (o outcomes) {
	log, _ := os.ReadFile(v.masters.running.log)
	for line := range strings.Lines(string(log)) {
		switch {
		case strings.Contains(line, `"msg":"units reloaded"`):
			o.done++
			o.complete = true
		case strings.Contains(line, `"msg":"reload failed"`):
			o.done++
			o.complete = false
			if !strings.Contains(line, "is not ready") {
				o.undone++
			}
		}
	}
	return o
}

// checkTurns fails for each process that was started with another environment than that of the file, after a reload
// that succeeded.
func (v *victim) checkTurns(living []being, fail func(string, ...any)) {
	if v.wanted.stale || !v.outcomes().complete {
		return
	}
	for _, b := range living {
		unit, _, _ := strings.Cut(b.worker, "-")
		if unit == job { // a change counts from its next run on
			continue
		}
		if want := v.turnOf(unit); b.turn != want {
			fail("%s has environment %q after a reload, want %q: %+v", b.worker, b.turn, want, b)
		}
	}
}

// scale has the running master give its first unit n workers. A number that the master has agreed to must not be lost.
func (v *victim) scale(n int) error {
	v.did("scaled", fmt.Sprint(n))
	if ended, err := v.masters.await("the master holds the state", v.holds); err != nil || ended {
		return errors.Join(err, v.reap())
	}
	v.workers.count, v.workers.promised = n, 0
	v.workers.least = min(v.workers.least, n)
	overtaken := v.outcomes().done < v.wanted.signals
	v.wanted.unsure = v.askToScale() != nil || overtaken || v.wanted.unsure
	if !v.wanted.unsure {
		v.workers.promised = n
	}
	return nil
}

// askToScale asks for the wanted number of workers, for as long as the master lives.
func (v *victim) askToScale() error {
	ctx, cancel := v.whileItLives(time.Second)
	defer cancel()
	return v.rig.admin.scale(ctx, int32(v.workers.count), false) //nolint:gosec // the number is small
}

// applied fails until the running master has finished all changes of the set. It repeats those that failed, or that
// another one may have overtaken.
func (v *victim) applied(state *adminpb.State) error {
	o := v.outcomes()
	switch {
	case o.done < v.wanted.signals:
		v.hasten(state)
		return errors.New("a reload is under way")
	case v.wanted.stale || o.undone > v.wanted.undone:
		v.wanted.undone, v.wanted.unsure = o.undone, true
		return errors.Join(errors.New("the file is read again"), v.reload())
	case v.wanted.unsure:
		if err := v.askToScale(); err != nil {
			return fmt.Errorf("scale again: %w", err)
		}
		v.wanted.unsure, v.workers.promised = false, v.workers.count
	}
	return nil
}

// hasten kills moody workers that keep a reload waiting for long.
func (v *victim) hasten(state *adminpb.State) {
	if time.Since(v.wanted.since) < time.Second {
		return
	}
	for _, w := range state.GetWorkers() {
		if b := leadersOf(v.workers.scan())[w.GetId()]; moody(w.GetId()) && w.GetStatus() == "starting" && len(b) > 0 {
			b[0].signal(unix.SIGKILL)
		}
	}
}

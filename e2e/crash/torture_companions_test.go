//go:build e2e && torture && linux

package crash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/records"
)

// Companions are units beside those of workers and sleepers, in the file of a part of the masters: the gate, which the
// sleepers and on a part of the hosts the workers depend on, and a job with a schedule. The gate, the job and the
// commands of the sleepers' hooks note in the folder of the companions when they run. If the test runs as root, the
// sleepers and the job run as another user, with a umask and limits. The other companions are in
// torture_tellers_test.go.

// job is the unit that is due each minute.
const job = "job"

// companionUnits are the units of the companions, of one worker each.
var companionUnits = []string{gate, job, beat, once, module, loner, grower}

const (
	companionSettles = 300 * time.Millisecond // the time until the gate is ready
	companionBackoff = 200 * time.Millisecond // of the gate
	// inFlight is how long after the start of a new gate a start may come that was decided before the end of the old
	// one. The two are at least the backoff apart.
	inFlight = 100 * time.Millisecond
	// unnoticed is how long a master may take to notice that the gate has ended: it may be suspended meanwhile.
	unnoticed = time.Second
)

// companions is their state as the test knows it.
type companions struct {
	there      bool // in the file
	gatesWorks bool // the workers depend on the gate too
	watch      bool // the file has the unmanaged units
	catchUp    bool // a run of the job makes up for missed ones

	tools, notes string
	// For the modules: the socket of the registry, and the folders of their ports and of what workers have handled.
	socket, record, handled string
	user                    string // lines of the file that set the user, with a umask and limits
	uid                     int

	// inForce is when the dependencies began to count, without a pause since; 0 if they do not count. Like all times
	// here it is since the boot.
	inForce time.Duration
	ended   []time.Duration // when the test has ended a gate
	checked time.Duration   // until when the starts of dependents were counted
	// runs are the tokens of the runs of the job that were recorded, by due time; last is the last due time.
	runs map[int64]string
	last time.Time
}

// startNote notes the start of a companion: its token, the tick of its start, the wall clock and its user.
const startNote = `#!/bin/sh
read -r stat </proc/$$/stat
set -- "$1" "$2" ${stat##*) }
echo "$HSU_WORKER_TOKEN ${22} $(date +%s) $(id -u) $(umask)" >>"$1/starts.$HSU_WORKER_ID"
echo W >>"$1/note.$HSU_WORKER_ID"
exec sleep "$2"
`

// timed runs a command of hooks, and notes the times of its begin and its success.
const timed = `#!/bin/sh
read -r up _ </proc/uptime
echo "$3 $up" >>"$1/times.$2"
"${0%/*}/command" "$1/note" "$2" "$3" || exit
read -r up _ </proc/uptime
echo "$3 $up" | tr BSA bsa >>"$1/times.$2"
`

// slow returns a command that is likely to run when its master is killed, and when the next one is ready.
func slow(script string) string { return strings.Replace(script, "sleep 0.1", "sleep 0.4", 1) }

// settleIn creates the folders and programs of the companions.
func (v *victim) settleIn() error {
	c := &v.companions
	c.runs = map[int64]string{}
	c.tools, c.notes = filepath.Join(v.dir, "tools"), filepath.Join(v.dir, "companions")
	err := errors.Join(os.Mkdir(c.tools, 0o700), os.Mkdir(c.notes, 0o700),
		harness.WriteProgram(filepath.Join(c.tools, "start"), []byte(startNote)),
		harness.WriteProgram(filepath.Join(c.tools, "command"), []byte(slow(command))),
		harness.WriteProgram(filepath.Join(c.tools, "timed"), []byte(timed)))
	if os.Geteuid() != 0 {
		return err
	}
	const nobody = 65534
	c.uid = nobody
	c.user = "    user: \"65534\"\n    group: \"65534\"\n    umask: \"0027\"\n    limits: {open_files: 1000}\n"
	for folder, mode := range map[string]os.FileMode{
		filepath.Dir(v.dir): 0o711, v.dir: 0o711, c.tools: 0o755, c.notes: 0o777,
		filepath.Join(c.tools, "start"): 0o755, filepath.Join(c.tools, "command"): 0o755,
		filepath.Join(c.tools, "timed"): 0o755,
	} {
		err = errors.Join(err, os.Chmod(folder, mode))
	}
	return err
}

// strikeDependents kills the gate and some of the workers that depend on it at once.
func (v *victim) strikeDependents(a int) {
	if v.workers.companions > 0 {
		v.strike(gate + "-0")
	}
	for n := range v.workers.sleepers {
		v.strike(fmt.Sprintf("%s-%d", sleeper, n))
	}
	if worker := fmt.Sprintf("worker-%d", a%v.workers.count); v.companions.gatesWorks && !moody(worker) {
		v.strike(worker)
	}
}

// atDueTime kills the master about when the job is due, if that is soon. Only whether it is depends on the clock.
func (v *victim) atDueTime(a int) error {
	now := time.Now()
	due := now.Truncate(time.Minute).Add(time.Minute)
	if v.masters.running == nil || v.companions.inForce == 0 || due.Sub(now) > 12*time.Second {
		return nil
	}
	v.did("master killed when the job is due", "")
	if a%2 == 0 {
		at := []moment{
			{crashpoint.Commit.Before(), 1},
			{crashpoint.Commit.After(), 1},
			{crashpoint.Fork.Before(), 1},
			{crashpoint.Fork.After(), 1},
			{crashpoint.Commit.Before(), 2},
			{crashpoint.Commit.After(), 2},
		}[a/2%6]
		v.masters.pause(time.Until(due) - 20*time.Millisecond)
		if v.masters.running.over() {
			return v.reap()
		}
		err := v.masters.arm(at)
		v.masters.pause(200 * time.Millisecond)
		return errors.Join(err, v.reap())
	}
	v.masters.pause(time.Until(due) + time.Duration(a%600-20)*time.Millisecond)
	return errors.Join(v.masters.kill(), v.afterDeath(v.mayEnd))
}

// noteExcuse in the notes of a worker allows that stop.after did not run for its last instance.
const noteExcuse = "X"

// excuse allows that commands have failed, or are not known to the next master.
func (c *companions) excuse() error {
	paths, err := filepath.Glob(filepath.Join(c.notes, "note."+sleeper+"-*"))
	for _, path := range paths {
		f, err2 := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err2 == nil {
			_, err2 = fmt.Fprintln(f, noteExcuse)
			err2 = errors.Join(err2, f.Close())
		}
		err = errors.Join(err, err2)
	}
	return err
}

// keys returns the keys of the sleepers that are about companions.
func (c *companions) keys() string {
	run := func(note string) string {
		return fmt.Sprintf("[%q, %q, \"{worker}\", %s]", c.tools+"/timed", c.notes, note)
	}
	text := c.user + fmt.Sprintf("    command: [%q, %q, \"1000000\"]\n", c.tools+"/start", c.notes) +
		fmt.Sprintf("    start: {settle: 10ms, before: %s}\n    stop: {grace: 20s, after: %s}\n",
			run(noteBefore), run(noteAfter))
	if c.there {
		text += fmt.Sprintf("    depends_on: {%s: ready}\n", gate)
	}
	return text
}

// units returns the units of the companions.
func (c *companions) units(turn string) string {
	if !c.there {
		return ""
	}
	return fmt.Sprintf(`  %s:
    kind: managed
    command: [%q, %q, "1000000"]
    environment: {TURN: %q}
    start: {settle: %s}
    restart: {backoff: {initial: %s, max: %[6]s}, budget: {restarts: 1000, within: 5m}}
    stop: {grace: 20s, command: [%[7]q, %[3]q, "{worker}", %[8]s]}
  %[9]s:
    kind: managed
    command: [%[2]q, %[3]q, "2"]
    schedule: "* * * * *"
    missed: %[11]s
    stop: {grace: 1s}
%[10]s`, gate, c.tools+"/start", c.notes, turn, companionSettles, companionBackoff,
		c.tools+"/timed", noteStop, job, c.user, map[bool]string{true: "run-once", false: "skip"}[c.catchUp]) +
		c.tellers(turn)
}

// sinceBoot returns the present time, on the clock of the times of processes.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

const tick = 10 * time.Millisecond

// startsOf returns the lines that workers of the unit have noted at their starts, in order.
func (c *companions) startsOf(unit string) (lines [][]string, err error) {
	paths, err := filepath.Glob(filepath.Join(c.notes, "starts."+unit+"-*"))
	for _, path := range paths {
		text, err2 := os.ReadFile(path)
		err = errors.Join(err, err2)
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) == 5 {
				lines = append(lines, fields)
			}
		}
	}
	return lines, err
}

// times returns when these workers were started.
func times(lines [][]string) (all []time.Duration) {
	for _, fields := range lines {
		ticks, _ := strconv.Atoi(fields[1])
		all = append(all, time.Duration(ticks)*tick)
	}
	slices.Sort(all)
	return all
}

// checkOrder fails for each start of a dependent while the gate was not ready. It returns how many it has checked for
// the first time.
func (c *companions) checkOrder(workers []being, fail func(string, ...any)) (n int) {
	gates, err := c.startsOf(gate)
	dependents, err2 := c.startsOf(sleeper)
	if err := errors.Join(err, err2); err != nil {
		fail("%w", err)
	}
	opened, starts := times(gates), times(dependents)
	for _, b := range workers {
		starts = append(starts, time.Duration(b.born)*tick) //nolint:gosec // a time fits
	}
	if c.inForce == 0 {
		return 0
	}
	last := c.checked
	for _, start := range starts {
		if start < c.inForce {
			continue
		}
		if start > last {
			n++
		}
		c.checked = max(c.checked, start)
		if why := tooEarly(start, opened, c.ended); why != "" {
			fail("a worker was started at %s, %s", start, why)
		}
	}
	return n
}

// tooEarly returns why a dependent must not have been started then, given the starts of gates and the times at which
// the test has ended one; empty if it may have been.
func tooEarly(start time.Duration, opened, ended []time.Duration) string {
	next := func(after time.Duration) time.Duration {
		for _, o := range opened {
			if o > after {
				return o
			}
		}
		return after
	}
	for _, o := range opened {
		if start > o+inFlight && start < o+companionSettles-tick {
			return fmt.Sprintf("and the gate at %s, which is not ready before %s", o, o+companionSettles)
		}
	}
	for _, e := range ended {
		if n := next(e); start > e+unnoticed && start < n {
			return fmt.Sprintf("and there was no gate from %s to %s", e, n)
		}
	}
	return ""
}

// checkStopped fails unless the commands of all sleepers that ended in an orderly stop had ended before that of the
// gate began. It returns how many these were.
func (c *companions) checkStopped(since time.Duration) (n int, err error) {
	began, ended := time.Duration(0), map[string]time.Duration{}
	var paths []string
	paths, err = filepath.Glob(filepath.Join(c.notes, "times.*"))
	for _, path := range paths {
		text, err2 := os.ReadFile(path)
		err = errors.Join(err, err2)
		for line := range strings.Lines(string(text)) {
			note, at, _ := strings.Cut(strings.TrimSpace(line), " ")
			seconds, _ := strconv.ParseFloat(at, 64)
			when := time.Duration(seconds * float64(time.Second))
			switch {
			case when < since-tick:
			case note == noteStop && began == 0:
				began = when
			case note == strings.ToLower(noteAfter):
				ended[filepath.Base(path)] = when
			}
		}
	}
	for name, when := range ended {
		if began > 0 {
			n++
		}
		if began > 0 && when > began {
			err = errors.Join(err, fmt.Errorf("%s ended at %s, and the gate that it depends on was stopped at %s",
				name, when, began))
		}
	}
	return n, err
}

// checkRuns fails if the job has run twice in a minute, or as another user. A run is started within seconds of its due
// time or not at all. It returns the number of runs.
func (c *companions) checkRuns(fail func(string, ...any)) (n int) {
	lines, err := c.startsOf(job)
	if err != nil {
		fail("%w", err)
	}
	minutes := map[int]string{}
	for _, fields := range lines {
		at, _ := strconv.Atoi(fields[2])
		if other := minutes[at/60]; other != "" {
			fail("the job has run twice in minute %d: %s, %s", at/60, other, fields[0])
		}
		minutes[at/60] = fields[0]
	}
	others, err := c.startsOf(sleeper)
	if err != nil {
		fail("%w", err)
	}
	for _, fields := range append(lines, others...) {
		if uid, _ := strconv.Atoi(fields[3]); uid != c.uid || c.user != "" && fields[4] != "0027" {
			fail("a worker ran as user %s with umask %s, want %d: %q", fields[3], fields[4], c.uid, c.user)
		}
	}
	return len(minutes)
}

// checkDue fails if the record of the job forgets a due time, or names another run for one.
func (c *companions) checkDue(recorded map[string]records.Worker, fail func(string, ...any)) {
	w, there := recorded[job+"-0"]
	if !there || w.Due == nil {
		return
	}
	if last := w.Due.Last; !last.IsZero() {
		if last.Before(c.last) {
			fail("the last due time of the job is %s, it was %s", last, c.last)
		}
		c.last = last
		if w.Instance != nil && w.Instance.Token != "" {
			if other := c.runs[last.Unix()]; other != "" && other != w.Instance.Token {
				fail("the job was run for %s twice, as %s and %s", last, other, w.Instance.Token)
			}
			c.runs[last.Unix()] = w.Instance.Token
		}
	}
}

// checkHooks fails if a command of a sleeper has run twice at once, or a sleeper was started without one. It returns
// the number of commands that succeeded.
func (c *companions) checkHooks(fail func(string, ...any)) (n int) {
	paths, _ := filepath.Glob(filepath.Join(c.notes, "note."+sleeper+"-*"))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		last, due := "", false // due: stop.after
		for _, note := range strings.Fields(string(text)) {
			if note == strings.ToLower(noteBefore) || note == strings.ToLower(noteAfter) {
				n++
			}
			switch {
			case note == noteTwin:
				err = errors.Join(err, errors.New("a command has run twice at once"))
			case note == noteStart && last != strings.ToLower(noteBefore):
				err = errors.Join(err, errors.New("a sleeper was started without start.before"))
			case note == noteBefore && due:
				err = errors.Join(err, errors.New("start.before ran before stop.after"))
			}
			if note == noteExcuse {
				due = false
				continue
			}
			due = note == noteStart || due && note != strings.ToLower(noteAfter)
			last = note
		}
		if err != nil {
			fail("%s: %w: %q", filepath.Base(path), err, text[max(0, len(text)-200):])
		}
	}
	return n
}

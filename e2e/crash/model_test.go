//go:build e2e && linux && (crash || torture)

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
)

// The model: the test's own knowledge, from /proc, from its requests and acts, and from the workers' notes. Every
// record and answer of the product is compared with it.

// being is a living process whose environment declares it a worker.
type being struct {
	pid           int
	worker, token string
	port          int
	born          uint64
	leader        bool   // it leads its session, as every worker does when started
	memory        string // a fact that only this process knows, once it was asked
	doomed        bool   // a master or the test has told it to end, or it is surplus
}

// signal sends a signal to the process, if that is still there.
func (b being) signal(signal unix.Signal) {
	harness.Process{PID: b.pid, StartTicks: b.born}.Signal(signal)
}

// known is the model's knowledge of a rig's workers.
type known struct {
	beings map[string]being // leaders that lived at the last inspection, by token
	ended  map[string]bool  // tokens of those that the test itself has ended
	ledger map[string]entry
	noted  map[string]int // instances that had taken notes before the slot was created again
}

// entry holds the facts about a worker that may never shrink or be forgotten.
type entry struct {
	restarts, incarnation uint64
	// Each of these costs a restart: deaths that the test has caused since, and instances that had found their port
	// taken before.
	deaths    uint64
	portTaken int
	// removed: its record was removed, as it should be, and has not been seen again since.
	removed bool
}

// restartsBy returns the minimum and the maximum number of restarts, with n being the present notes. An instance
// that found its port taken costs a restart if a master has noticed: the master that started it may have been
// killed before it recorded that.
func (e entry) restartsBy(n noted) (least, most uint64) {
	least = e.restarts + e.deaths
	return least, least + uint64(n.portTaken-e.portTaken) //nolint:gosec // the count only grows
}

func newKnown() known {
	return known{
		beings: map[string]being{}, ended: map[string]bool{}, ledger: map[string]entry{}, noted: map[string]int{},
	}
}

// scan returns all living processes that carry the token of a worker of this rig.
func (r *rig) scan() []being {
	id := []byte("HSU_STATE_DIR=" + harness.StateID(r.state) + "\x00")
	var all []being
	buffer := make([]byte, 128<<10) // far more than the environment of these tests has
	for _, pid := range harness.PIDs() {
		folder := "/proc/" + strconv.Itoa(pid)
		environ := readAtOnce(folder+"/environ", buffer)
		for since := time.Now(); len(environ) == 0 && executing(pid, time.Since(since)); {
			time.Sleep(100 * time.Microsecond)
			environ = readAtOnce(folder+"/environ", buffer)
		}
		if !bytes.Contains(environ, id) {
			continue
		}
		b := being{pid: pid}
		for entry := range bytes.SplitSeq(environ, []byte{0}) {
			switch name, value, _ := bytes.Cut(entry, []byte{'='}); string(name) {
			case "HSU_WORKER_ID":
				b.worker = string(value)
			case "HSU_WORKER_TOKEN":
				b.token = string(value)
			case "HSU_WORKER_PORT":
				b.port, _ = strconv.Atoi(string(value))
			}
		}
		f, err := harness.ReadStat(folder)
		if err != nil || b.token == "" {
			continue
		}
		b.born, b.leader = f.StartTicks, f.Session == pid
		all = append(all, b)
	}
	return all
}

// bare are processes without an environment, which would otherwise be inspected thousands of times: kernel threads,
// and others that were started without one.
var bare sync.Map

// executing reports whether a process without an environment may just be executing another program: during that it
// has none for a moment.
func executing(pid int, since time.Duration) bool {
	if _, known := bare.Load(pid); known {
		return false
	}
	const kernelThreads = 2 // PID of their parent
	f, err := harness.ReadStat("/proc/" + strconv.Itoa(pid))
	if err != nil || f.State == 'Z' || f.State == 'X' {
		return false
	}
	// While it executes another program it has no arguments either, for a long time if it is not scheduled.
	limit := 20 * time.Millisecond
	if len(readAtOnce("/proc/"+strconv.Itoa(pid)+"/cmdline", make([]byte, 1))) == 0 {
		limit = 3 * time.Second
	}
	if f.PPID == 0 || f.PPID == kernelThreads || since > limit {
		bare.Store(pid, true)
		return false
	}
	return true
}

// readAtOnce reads a file of the kernel with as few system calls as possible, because it is used for every process,
// several times in a trial.
func readAtOnce(path string, buffer []byte) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	n, _ := unix.Read(fd, buffer)
	return buffer[:max(n, 0)]
}

// leadersOf returns the leaders among them by worker.
func leadersOf(all []being) map[string][]being {
	m := map[string][]being{}
	for _, b := range all {
		if b.leader {
			m[b.worker] = append(m[b.worker], b)
		}
	}
	return m
}

// offline is the state while no master runs.
type offline struct {
	snap    *records.Snapshot // nil if there is no state yet
	living  []being
	records map[string]records.Worker
}

// inspect inspects the state and the processes that a dead master has left, and checks everything that must hold at
// any moment. mayEnd reports which workers the operation may have stopped.
func (r *rig) inspect(mayEnd func(worker string) bool) (offline, error) {
	o := offline{records: map[string]records.Worker{}, living: r.scan()}
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
	noted, err := r.instancesNoted()
	if err != nil {
		fail("%w", err)
	}
	switch {
	case r.damaged:
	case o.snap != nil:
		for key, err := range snap.Bad {
			fail("record %s: %w", key, err)
		}
		tokens, ports := map[string]string{}, map[int]string{}
		for _, w := range snap.Workers {
			o.records[w.ID] = w
			r.checkRecord(w, noted[w.ID], fail)
			if w.Instance == nil {
				continue
			}
			if other := tokens[w.Instance.Token]; other != "" {
				fail("%s and %s have the same token", w.ID, other)
			}
			if other := ports[w.Instance.Port]; other != "" {
				fail("%s and %s have the same port", w.ID, other)
			}
			tokens[w.Instance.Token], ports[w.Instance.Port] = w.ID, w.ID
		}
		if err := r.calls.check(r.notes, snap.Processed); err != nil {
			fail("after a crash: %w", err)
		}
		r.checkRegistrations(r.recordedOutside(snap.Registered, fail), true, fail)
		if problems, err := store.Check(r.state); err != nil || !problems.OK() {
			fail("the state after a crash: %v, %w", problems, err)
		}
	case len(o.living) > 0:
		fail("there is no state, and there are workers: %+v", o.living)
	}
	alive := map[string]bool{}
	for id, leaders := range leadersOf(o.living) {
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
		}
	}
	for token, b := range r.known.beings {
		if !alive[token] && !r.known.ended[token] && !b.doomed && !mayEnd(b.worker) && !r.lostPort(b) {
			fail("%s has died with its master, or by it: %+v", b.worker, b)
		}
	}
	for id, was := range r.known.ledger {
		_, there := o.records[id]
		switch {
		case r.damaged:
		case there && was.removed:
			was.removed = false
			r.known.ledger[id] = was
		case there || was.removed:
		case r.isSurplus(id):
			if err := r.forget(id); err != nil {
				fail("%w", err)
			}
		default:
			fail("the record of %s is gone", id)
		}
	}
	r.look(o)
	if err := r.secretSpilled(); err != nil {
		fail("%w", err)
	}
	return o, errors.Join(errs...)
}

// look makes the now living processes those that must go on living.
func (r *rig) look(o offline) {
	now := map[string]being{}
	for _, b := range o.living {
		if !b.leader {
			continue
		}
		b.memory = r.known.beings[b.token].memory
		b.doomed = o.records[b.worker].Status == records.StatusStopping || r.isSurplus(b.worker) || r.known.ended[b.token]
		now[b.token] = b
	}
	r.known.beings = now
}

// isSurplus reports whether the worker is beyond the number that a master wants, or is to want.
func (r *rig) isSurplus(worker string) bool {
	number, err := strconv.Atoi(strings.TrimPrefix(worker, "worker-"))
	wanted := r.count
	if r.least > 0 {
		wanted = min(wanted, r.least)
	}
	return err != nil || number >= wanted
}

// readState reads the state of a master that has just died. A child that it had forked may hold its lock until the
// child executes another program.
func readState(dir string) (records.Snapshot, error) {
	for deadline := time.Now().Add(harness.Patience); ; time.Sleep(time.Millisecond) {
		snap, err := store.ReadSnapshot(dir)
		if _, locked := errors.AsType[*store.LockedError](err); !locked || time.Now().After(deadline) {
			return snap, err
		}
	}
}

// checkRecord checks the facts that a record may never lose.
func (r *rig) checkRecord(w records.Worker, n noted, fail func(string, ...any)) {
	was := r.known.ledger[w.ID]
	if r.least > 0 && r.isSurplus(w.ID) { // it may have been removed since, and created again
		was.deaths += was.restarts
		was.restarts, was.incarnation = 0, 0
	}
	_, most := was.restartsBy(n)
	if r.moody != nil && r.moody(w.ID) {
		most = math.MaxInt32 // it also dies by itself
	}
	if w.Desired != records.DesiredRunning {
		fail("%s: desired is %q", w.ID, w.Desired)
	}
	if w.Restarts < was.restarts || w.Restarts > most {
		fail("%s: %d restarts are recorded, there were %d before, and can be %d by now",
			w.ID, w.Restarts, was.restarts, most)
	}
	if len(w.History.Spent) != int(w.Restarts) {
		fail("%s: %d of the budget are spent after %d restarts", w.ID, len(w.History.Spent), w.Restarts)
	}
	if w.Incarnation < was.incarnation {
		fail("%s: incarnation %d, it was %d", w.ID, w.Incarnation, was.incarnation)
	}
}

// secretSpilled fails if a file of the state holds a value of the environment.
func (r *rig) secretSpilled() error {
	for _, name := range []string{"state.db", "counter.dat", "admin.path"} {
		text, err := os.ReadFile(filepath.Join(r.state, name))
		if err == nil && bytes.Contains(text, []byte(r.secret)) {
			return fmt.Errorf("%s holds a secret", name)
		}
	}
	return nil
}

// forget resets the model of a slot whose record was removed, as it should be.
func (r *rig) forget(worker string) error {
	noted, err := r.instancesNoted()
	r.known.noted[worker] = noted[worker].all
	r.known.ledger[worker] = entry{portTaken: noted[worker].portTaken, removed: true}
	return err
}

// forgetAll resets the model of all slots.
func (r *rig) forgetAll() error {
	var err error
	for id := range r.known.ledger {
		err = errors.Join(err, r.forget(id))
	}
	return err
}

// end ends a worker by a signal that the policy answers with a restart.
func (r *rig) end(worker string, signal unix.Signal) error {
	leaders := leadersOf(r.scan())[worker]
	if len(leaders) != 1 {
		return fmt.Errorf("end %s: it is %+v", worker, leaders)
	}
	b := leaders[0]
	r.known.ended[b.token] = true
	e := r.known.ledger[worker]
	e.deaths++
	r.known.ledger[worker] = e
	b.signal(signal)
	return nil
}

// gone waits until the workers that the test has ended are gone.
func (r *rig) gone() error {
	return harness.Poll(func() error {
		left := slices.DeleteFunc(r.scan(), func(b being) bool { return !b.leader || !r.known.ended[b.token] })
		if len(left) > 0 {
			return fmt.Errorf("processes do not end: %+v", left)
		}
		return nil
	})
}

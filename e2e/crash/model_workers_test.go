//go:build e2e && linux && (crash || torture)

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// sleeper is the name of the unit whose workers have no port, and no habits.
const sleeper = "sleeper"

// once is the name of the unit whose workers send READY=1 once, whether or not a master reads it.
const once = "once"

// being is a living process whose environment declares it a worker.
type being struct {
	pid           int
	worker, token string
	port          int
	born          uint64
	turn          string // of its unit when it was started, see [rig.writeFile]; empty for none
	leader        bool   // it leads its session, as every worker does when started
	memory        string // a fact that only this process knows, once it was asked
	helper        bool   // it is a start helper, which ends with its master
	doomed        bool   // it was told to end, or is to be replaced, or it is surplus, or a helper
}

// signal sends a signal to the process, if that is still there.
func (b being) signal(signal unix.Signal) {
	harness.Process{PID: b.pid, StartTicks: b.born}.Signal(signal)
}

// workers is the model's knowledge of a rig's workers.
type workers struct {
	state, notes string

	// refilled: workers were replaced by a reload, which gives them a whole budget.
	refilled bool

	count int // workers wanted at the next launch
	// configured is the number that masters are started with, 0 if it is count. If it is set, count is what an operator
	// has set, as recorded; promised is the number that a master has agreed to, 0 for none.
	configured, promised int
	earlier              []int        // other numbers that may be recorded as the configured one
	recorded             records.Unit // at the last inspection

	// sleepers is the number of workers that the unit without a port shall have, leastSleepers the minimum since the
	// last rest.
	sleepers, leastSleepers int

	// companions is 1 if the gate and the job are wanted, leastCompanions the minimum since the last rest.
	companions, leastCompanions int

	least  int                      // the minimum since the last rest, 0 if equal to count
	moody  func(worker string) bool // reports whether a worker dies by itself; nil if none does
	beings map[string]being         // leaders that lived at the last inspection, by token
	ended  map[string]bool          // tokens of those that the test itself has ended
	// excused are the tokens of those that a master may end, or has ended, for a reason that the test knows.
	excused map[string]bool
	dying   []being // those of them that may not be gone yet
	ledger  map[string]entry
	noted   map[string]int           // instances that had taken notes before the slot was created again
	own     map[int]*grpc.ClientConn // connections to workers, by port

	verbs verbs // of an operator

	left     map[string]bool // tokens of the commands that lived at the last inspection
	commands []being         // leaders of the commands that lived at the last scan, see isCommand
}

// verbs are what an operator has done to the worker "worker-1".
type verbs struct {
	expected bool   // it may be stopped
	stopped  bool   // it is recorded as stopped by the operator
	promised string // the desired state that a master has agreed to, "" for none
}

// note takes the desired state of a record.
func (v *verbs) note(w records.Worker, fail func(string, ...any)) {
	if !v.expected || w.ID != "worker-1" {
		if w.Desired != records.DesiredRunning {
			fail("%s: desired is %q", w.ID, w.Desired)
		}
		return
	}
	v.stopped = w.Desired == records.DesiredStopped
	if v.promised != "" && v.promised != string(w.Desired) {
		fail("%s: desired is %q, and a master has agreed to %q", w.ID, w.Desired, v.promised)
	}
	if v.stopped != (w.StoppedBy != nil) {
		fail("%s: desired is %q by %v", w.ID, w.Desired, w.StoppedBy)
	}
}

// halts reports whether the worker is to be stopped.
func (v *verbs) halts(worker string) bool { return v.stopped && worker == "worker-1" }

// running returns how many of count workers shall run.
func (v *verbs) running(count int) int {
	if v.stopped {
		return count - 1
	}
	return count
}

func newWorkers(state, notes string, count int) workers {
	return workers{
		state: state, notes: notes, count: count, beings: map[string]being{}, ended: map[string]bool{},
		excused: map[string]bool{}, ledger: map[string]entry{}, noted: map[string]int{},
		own: map[int]*grpc.ClientConn{},
	}
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

// scan returns all living processes that carry the token of a worker of this rig. It notes the commands apart.
func (ws *workers) scan() []being {
	id := []byte("HSU_STATE_DIR=" + harness.StateID(ws.state) + "\x00")
	var all []being
	ws.commands = nil
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
			case "TURN":
				b.turn = string(value)
			}
		}
		f, err := harness.ReadStat(folder)
		if err != nil || b.token == "" {
			continue
		}
		if b.port == 0 {
			b.port = ws.ownPort(b.token)
		}
		b.born, b.leader = f.StartTicks, f.Session == pid
		arguments := readAtOnce(folder+"/cmdline", buffer)
		if isCommand(b.worker, arguments) {
			if b.leader {
				ws.commands = append(ws.commands, b)
			}
			continue
		}
		// A process without arguments has just ended: a helper has seen the end of its master.
		b.helper = len(arguments) == 0 || bytes.HasPrefix(arguments, []byte("hsu-master-start\x00"))
		all = append(all, b)
	}
	return all
}

// isCommand reports whether the process with the worker's ID is one that a master runs beside its workers, and that the
// next master ends: a command of a hook or for an event, or the check of an upgrade.
func isCommand(id string, arguments []byte) bool {
	_, _, hook := unit.HookOf(id)
	// Without arguments it has just ended.
	check := id == "" && (len(arguments) == 0 || bytes.Contains(arguments, []byte("\x00upgrade-check\x00")))
	return hook || check || strings.HasPrefix(id, "on_event/") || id == lateWorker
}

// ownPort returns the port that a worker has chosen itself and left for the test, 0 if there is none.
func (ws *workers) ownPort(token string) int {
	path := filepath.Join(filepath.Dir(ws.notes), "record", "module."+token)
	port, _ := strconv.Atoi(string(readAtOnce(path, make([]byte, 8))))
	return port
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

// look makes the now living processes those that must go on living.
func (ws *workers) look(o offline) {
	now := map[string]being{}
	for _, b := range o.living {
		if !b.leader {
			continue
		}
		b.memory = ws.beings[b.token].memory
		b.doomed = o.records[b.worker].Status == records.StatusStopping || ws.isSurplus(b.worker) ||
			ws.ended[b.token] || ws.excused[b.token] || b.helper || o.isReplaced(b.worker) || ws.verbs.halts(b.worker)
		now[b.token] = b
	}
	ws.beings = now
}

// isSurplus reports whether the worker is beyond the number that a master wants, or is to want.
func (ws *workers) isSurplus(worker string) bool {
	unit, index, _ := strings.Cut(worker, "-")
	number, err := strconv.Atoi(index)
	wanted := ws.count
	if ws.least > 0 {
		wanted = min(wanted, ws.least)
	}
	switch {
	case unit == sleeper:
		wanted = min(ws.sleepers, ws.leastSleepers)
	case unit != "worker" && ws.configured > 0:
		wanted = min(ws.companions, ws.leastCompanions)
	}
	return err != nil || number >= wanted
}

// scaled makes the recorded number of workers the wanted one.
func (ws *workers) scaled(units []records.Unit, fail func(string, ...any)) {
	if ws.configured == 0 {
		return
	}
	for _, u := range units {
		if u.Name != "worker" {
			continue
		}
		ws.count, ws.recorded = u.Wanted(), u
		if u.Replicas != ws.configured && !slices.Contains(ws.earlier, u.Replicas) ||
			ws.promised > 0 && ws.promised != ws.count {
			fail("%+v is recorded, want %d configured, or earlier %v, and %d promised (0 if none)",
				u, ws.configured, ws.earlier, ws.promised)
		}
		ws.earlier = []int{u.Replicas}
	}
}

// surplus returns the number of recorded workers that the next launch has to remove.
func (ws *workers) surplus(o offline) int {
	n := 0
	for _, w := range o.records {
		if ws.isSurplus(w.ID) {
			n++
		}
	}
	return n
}

// checkRecord checks the facts that a record may never lose.
func (ws *workers) checkRecord(w records.Worker, n noted, fail func(string, ...any)) {
	was := ws.ledger[w.ID]
	if ws.least > 0 && ws.isSurplus(w.ID) { // it may have been removed since, and created again
		was.deaths += was.restarts
		was.restarts, was.incarnation = 0, 0
	}
	_, most := was.restartsBy(n)
	if ws.moody != nil && ws.moody(w.ID) {
		most = math.MaxInt32 // it also dies by itself
	}
	ws.verbs.note(w, fail)
	if w.Restarts < was.restarts || w.Restarts > most {
		fail("%s: %d restarts are recorded, there were %d before, and can be %d by now",
			w.ID, w.Restarts, was.restarts, most)
	}
	blameless := strings.HasPrefix(w.ID, once+"-") // its READY=1 may have been lost
	if n := len(w.History.Spent); n > int(w.Restarts) || n < int(w.Restarts) && !ws.refilled && !blameless {
		fail("%s: %d of the budget are spent after %d restarts", w.ID, len(w.History.Spent), w.Restarts)
	}
	if w.Incarnation < was.incarnation {
		fail("%s: incarnation %d, it was %d", w.ID, w.Incarnation, was.incarnation)
	}
}

// allRunning fails until each wanted worker is reported as running and gets requests.
func (ws *workers) allRunning(state *adminpb.State) error {
	if got := len(state.GetWorkers()); got != ws.count {
		return fmt.Errorf("there are %d workers, want %d", got, ws.count)
	}
	healthy := map[string]bool{}
	for _, s := range state.GetServices() {
		for _, e := range s.GetEndpoints() {
			healthy[e.GetWorker()] = healthy[e.GetWorker()] || e.GetHealthy()
		}
	}
	for _, w := range state.GetWorkers() {
		if ws.verbs.halts(w.GetId()) {
			if w.GetStatus() != "stopped" || w.GetPid() != 0 || healthy[w.GetId()] {
				return fmt.Errorf("%s is to be stopped: %v", w.GetId(), w)
			}
			continue
		}
		if w.GetStatus() != "running" || w.GetPid() == 0 || !healthy[w.GetId()] {
			return fmt.Errorf("%s: %v", w.GetId(), w)
		}
	}
	return nil
}

// checkReport compares the master's report of each worker with the processes, and with its earlier reports.
func (ws *workers) checkReport(state *adminpb.State, leaders map[string][]being, fail func(string, ...any)) {
	noted, err := ws.instancesNoted()
	if err != nil {
		fail("%w", err)
	}
	for _, w := range state.GetWorkers() {
		now := leaders[w.GetId()]
		if halts := ws.verbs.halts(w.GetId()); halts != (w.GetDesired() == "stopped") {
			fail("%s: desired is %q", w.GetId(), w.GetDesired())
		} else if halts {
			if len(now) > 0 {
				fail("%s is to be stopped and lives: %+v", w.GetId(), now)
			}
			continue
		}
		if len(now) != 1 || now[0].pid != int(w.GetPid()) || now[0].token != w.GetToken() ||
			now[0].port != int(w.GetPort()) {
			fail("%s is said to be %v, and is %+v", w.GetId(), w, now)
		}
		was := ws.ledger[w.GetId()]
		n := noted[w.GetId()]
		if least, most := was.restartsBy(n); w.GetRestarts() < least || w.GetRestarts() > most {
			fail("%s: %d restarts, want %d to %d", w.GetId(), w.GetRestarts(), least, most)
		}
		if w.GetIncarnation() < was.incarnation || int(w.GetIncarnation()) < n.all-ws.noted[w.GetId()] {
			fail("%s: incarnation %d, it was %d, and %d instances have taken notes",
				w.GetId(), w.GetIncarnation(), was.incarnation, n.all)
		}
	}
}

// remember makes the present state the expected one, and checks that the workers' memory is unchanged.
func (ws *workers) remember(state *adminpb.State, leaders map[string][]being) error {
	var errs []error
	beings := map[string]being{}
	for id, all := range leaders {
		for _, b := range all {
			memory, err := ws.memoryOf(b.port)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s does not answer by itself: %w", id, err))
			}
			b.memory = memory
			if was := ws.beings[b.token]; was.memory != "" && was.memory != b.memory {
				errs = append(errs, fmt.Errorf("%s has lost its memory: %+v, was %+v", id, b, was))
			}
			beings[b.token] = b
		}
	}
	ws.beings = beings
	noted, err := ws.instancesNoted()
	if err != nil {
		errs = append(errs, err)
	}
	for _, w := range state.GetWorkers() {
		ws.ledger[w.GetId()] = entry{
			restarts: w.GetRestarts(), incarnation: w.GetIncarnation(), portTaken: noted[w.GetId()].portTaken,
		}
	}
	return errors.Join(errs...)
}

// memoryOf asks the worker on the port directly, without a master, for facts that only it knows.
func (ws *workers) memoryOf(port int) (string, error) {
	conn := ws.own[port]
	if conn == nil {
		var err error
		if conn, err = quickDial("passthrough:///" + harness.Loopback(port)); err != nil {
			return "", err
		}
		ws.own[port] = conn
	}
	ctx, cancel := brief()
	defer cancel()
	answer, err := proto.NewMyBusinessServiceClient(conn).GetStatus(ctx, &proto.StatusRequest{},
		grpc.WaitForReady(true))
	return answer.GetStatus(), err
}

// forget resets the model of a slot whose record was removed, as it should be.
func (ws *workers) forget(worker string) error {
	noted, err := ws.instancesNoted()
	ws.noted[worker] = noted[worker].all
	ws.ledger[worker] = entry{portTaken: noted[worker].portTaken, removed: true}
	return err
}

// excuse allows that the process ends, and that its worker is restarted for that.
func (ws *workers) excuse(b being) {
	if ws.excused[b.token] {
		return
	}
	ws.excused[b.token] = true
	e := ws.ledger[b.worker]
	e.deaths++
	ws.ledger[b.worker] = e
}

// forgetAll resets the model of all slots.
func (ws *workers) forgetAll() error {
	var err error
	for id := range ws.ledger {
		err = errors.Join(err, ws.forget(id))
	}
	return err
}

// end ends a worker by a signal that the policy answers with a restart.
func (ws *workers) end(worker string, signal unix.Signal) error {
	leaders := leadersOf(ws.scan())[worker]
	if len(leaders) != 1 {
		return fmt.Errorf("end %s: it is %+v", worker, leaders)
	}
	b := leaders[0]
	ws.ended[b.token] = true
	e := ws.ledger[worker]
	e.deaths++
	ws.ledger[worker] = e
	ws.dying = append(ws.dying, b)
	b.signal(signal)
	return nil
}

// gone waits until the workers that the test has ended are gone. They have no environment any more before that, so a
// scan does not show them, but a master rightly finds them alive.
func (ws *workers) gone() error {
	err := harness.Poll(func() error {
		if ws.dying = slices.DeleteFunc(ws.dying, being.gone); len(ws.dying) > 0 {
			return fmt.Errorf("processes do not end: %+v", ws.dying)
		}
		return nil
	})
	ws.dying = nil
	return err
}

// gone reports whether the process has ended, with all of its threads.
func (b being) gone() bool {
	fd, err := unix.PidfdOpen(b.pid, 0)
	if err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	defer unix.Close(fd)
	if f, err := harness.ReadStat("/proc/" + strconv.Itoa(b.pid)); err == nil && f.StartTicks != b.born {
		return true
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) //nolint:gosec // a descriptor fits
	return err == nil && n > 0
}

// noted counts the instances of a worker that created a file of notes: all of them, and those that found their port
// taken.
type noted struct{ all, portTaken int }

// portTaken ends the name of the notes of an instance that found its port taken: see the unit.
const portTaken = ".port-taken"

// lostPort reports whether the instance found its port taken, by a process outside of this test, and exited for
// that.
func (ws *workers) lostPort(b being) bool {
	_, err := os.Stat(filepath.Join(ws.notes, fmt.Sprintf("%s.%d.%s", b.worker, b.pid, b.token)+portTaken))
	return err == nil
}

// instancesNoted counts the instances: each has left its own file.
func (ws *workers) instancesNoted() (map[string]noted, error) {
	names, err := os.ReadDir(ws.notes)
	count := map[string]noted{}
	for _, name := range names {
		worker, rest, _ := strings.Cut(name.Name(), ".")
		n := count[worker]
		n.all++
		if strings.HasSuffix(rest, portTaken) {
			n.portTaken++
		}
		count[worker] = n
	}
	return count, err
}

// disconnect closes the connections to the workers.
func (ws *workers) disconnect() {
	for _, conn := range ws.own {
		_ = conn.Close()
	}
}

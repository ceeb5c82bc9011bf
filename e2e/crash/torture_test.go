//go:build e2e && torture && linux

package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// Random trouble. A host with a few workers of good and bad habits has trouble for some rounds: master and workers
// are killed, suspended, detached, stopped, scaled, their file is read again, the state cannot be written, foreign
// processes take the place of recorded ones, and requests keep coming. After each round the host comes to rest, and
// its actual state is compared with the model. The sequence of acts follows from SEED alone, not from timing.
//
//	SEED=   of all random choices; if it is not set, one is generated and printed
//	N=      rounds, 50 if not set
//	HOST=   only the host with this number, as in the message of a failure
//	LANES=  number of concurrent hosts, 3 if not set
//	TORTURE_TABLE=FILE  to write the table to as well

// roundsOfAHost limits the backoff of workers that are killed repeatedly.
const roundsOfAHost = 25

// tortureHabits are the habits of the workers, by number. A moody worker behaves differently at each start: it may
// serve, exit at once or later, listen and never answer, or not even listen.
var tortureHabits = []string{
	"plain", "stubborn+child", "moody", "plain+child", "plain", "moody+child", "stubborn", "plain+bare",
}

func moody(worker string) bool {
	unit, number, _ := strings.Cut(worker, "-")
	n, err := strconv.Atoi(number)
	habit := tortureHabits[n%len(tortureHabits)]
	return unit == job || unit == "worker" && err == nil && strings.HasPrefix(habit, "moody")
}

// score counts all acts, for the table.
type score struct {
	mu                  sync.Mutex
	actions             map[string]int
	rounds, sent, acked int
	counted             int64
	instances, checks   int

	messages, answered, streams int // of calls that are forwarded

	// Starts and stops whose order was checked, runs of the job, commands of hooks.
	dependents, stops, runs, commands int

	adopted, ownPorts int // workers with notifications, and with a port of their own, that were compared
}

func (c *score) note(action string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.actions[action]++
}

func (c *score) add(change func(c *score)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}

func TestTorture(t *testing.T) {
	began := time.Now()
	seed := uint64(number(t, "SEED", int(began.UnixNano()&0xffffffff))) //nolint:gosec // not negative
	rounds, lanes, only := number(t, "N", 50), number(t, "LANES", 3), number(t, "HOST", 0)
	t.Logf("SEED=%d", seed)
	base := trialFolder(t, ramDisk)
	all := &score{actions: map[string]int{}}
	hosts := make(chan int)
	var wg sync.WaitGroup
	for range lanes {
		wg.Go(func() {
			for host := range hosts {
				n := min(roundsOfAHost, rounds-(host-1)*roundsOfAHost)
				if err := torture(t, base, seed, host, n, all); err != nil {
					t.Errorf("SEED=%d HOST=%d: %v", seed, host, err)
				}
			}
		})
	}
	for host := 1; (host-1)*roundsOfAHost < rounds && !t.Failed(); host++ {
		if only == 0 || only == host {
			hosts <- host
		}
	}
	close(hosts)
	wg.Wait()
	if t.Failed() {
		return
	}
	if rounds >= 2*roundsOfAHost && only == 0 {
		all.checkActs(t)
	}
	text := fmt.Sprintf("%s\n%s on %s, %d hosts at a time, SEED=%d.\n",
		all, time.Since(began).Round(time.Second), time.Now().Format(time.DateOnly), lanes, seed)
	t.Logf("what was done, and what was found\n\n%s", text)
	if path := os.Getenv("TORTURE_TABLE"); path != "" {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Error(err)
		}
	}
}

// checkActs fails if an act of the operator has never happened.
func (c *score) checkActs(t *testing.T) {
	for _, act := range deck(rand.New(rand.NewPCG(0, 0))) { //nolint:gosec // the order does not matter
		if c.actions[act] == 0 {
			t.Errorf("%q was never done, in %d rounds", act, c.rounds)
		}
	}
}

// String returns the table. It is only printed if no fault was found.
func (c *score) String() string {
	var b strings.Builder
	row := func(what string, n any) { fmt.Fprintf(&b, "| %s | %v |\n", what, n) }
	b.WriteString("| | |\n|---|--:|\n")
	row("rounds", c.rounds)
	for _, name := range slices.Sorted(keysOf(c.actions)) {
		row(name, c.actions[name])
	}
	row("instances started", c.instances)
	row("comparisons with the model", c.checks)
	row("starts of dependents", c.dependents)
	row("stops in order of dependencies", c.stops)
	row("runs of the job", c.runs)
	row("commands of hooks", c.commands)
	row("adopted workers with notifications", c.adopted)
	row("ports that workers have chosen", c.ownPorts)
	row("requests sent", c.sent)
	row("requests acknowledged", c.acked)
	row("requests counted", c.counted)
	row("messages relayed", c.messages)
	row("messages answered", c.answered)
	row("streams opened", c.streams)
	for _, none := range []string{
		"acknowledgements lost", "registrations lost", "calls handled twice", "twins", "orphans",
		"strangers signalled", "starts without a dependency", "due times run twice", "commands run twice at once",
		"panics and leaks",
	} {
		row(none, 0)
	}
	return b.String()
}

func keysOf(m map[string]int) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// victim is a host under torture.
type victim struct {
	*rig
	rng       *rand.Rand
	tally     *score
	suspended map[string]bool // tokens of workers that got SIGSTOP
	load      sync.WaitGroup
	enough    chan struct{} // closed when no more requests are to be sent
	deeds     []string      // of this host, for the report
	last      progress      // at the end of the last round
	wanted    wanted

	companions companions
	operator   operator
}

// progress is how far a host has come.
type progress struct {
	sent, acked, started int
	counted              int64

	messages, answered, streams int

	runs, commands int
}

func torture(t *testing.T, base string, seed uint64, host, rounds int, all *score) error {
	rng := rand.New(rand.NewPCG(seed, uint64(host))) //nolint:gosec // a seed makes the run repeatable
	r, err := newRig(t, base, 3+rng.IntN(10))
	if err != nil {
		return err
	}
	defer r.destroy()
	r.arguments = []string{"-as", strings.Join(tortureHabits, ","), "-record", r.dir, "-notes", r.notes, "-echo"}
	r.flags = append(r.flags, "--stop-grace", "300ms", "--start-timeout", "15s",
		"--worker-service", "proto.MyBusinessService", "--worker-service", echo.Service)
	r.workers.moody, r.workers.least, r.workers.configured = moody, r.workers.count, r.workers.count
	v := &victim{rig: r, rng: rng, tally: all, suspended: map[string]bool{}}
	v.operator.forget()
	r.fromFile, v.wanted.sleepers = rng.IntN(3) > 0, 1+rng.IntN(3)
	c := &v.companions
	c.there, c.gatesWorks, c.watch = rng.IntN(4) > 0, rng.IntN(2) == 0, rng.IntN(2) == 0
	c.catchUp = rng.IntN(3) > 0
	port := harness.FreePort(t)
	c.socket, c.record, c.handled = filepath.Join(r.dir, "registry.sock"), r.record, r.notes
	r.always = c.registry()
	if err := errors.Join(v.settleIn(), r.employ(port), r.registrations.invite()); err != nil {
		return err
	}
	for round := range rounds {
		v.deeds = append(v.deeds, fmt.Sprintf("-- round %d", round))
		if err := v.round(); err != nil {
			return fmt.Errorf("round %d: %w\nwhat was done: %s\n%s",
				round, err, strings.Join(v.deeds, "; "), r.report())
		}
	}
	if err := v.finish(); err != nil {
		return fmt.Errorf("in the end: %w\n%s", err, r.report())
	}
	return nil
}

// finish stops the last master in an orderly way. If that master was started with a crash point that it has not
// reached, it may reach the point during the stop: then another master stops the remaining workers.
func (v *victim) finish() error {
	if err := v.outgrown(); err != nil {
		return err
	}
	if err := v.leave(syscall.SIGTERM); err != nil {
		return err
	}
	if err := v.calm(); err != nil {
		return err
	}
	return v.rig.finish()
}

func (v *victim) did(action, detail string) {
	v.tally.note(action)
	v.deeds = append(v.deeds, strings.TrimSpace(action+" "+detail))
}

// round does some of the possible acts and then compares.
func (v *victim) round() error {
	v.enough = make(chan struct{})
	callers := 1 + v.rng.IntN(8)
	for range callers {
		v.load.Go(v.ask100)
	}
	v.load.Go(v.relay100)
	for _, service := range []string{echo.Service, guests[0]} {
		v.load.Go(func() { v.holdStreams(service) })
	}
	acts, a := 1+v.rng.IntN(4), v.rng.IntN(1<<20)
	err := errors.Join(v.atDueTime(a), v.trouble(acts))
	if err == nil {
		err = v.calm()
	}
	close(v.enough)
	v.load.Wait()
	for err == nil {
		// If the master dies meanwhile, the remaining requests are sent in the next round.
		_ = v.calls.resend()
		if err = v.compare(); !errors.Is(err, errDied) {
			break
		}
		err = v.calm()
	}
	return err
}

// errDied means that the master reached the crash point that it was started with.
var errDied = errors.New("the master died meanwhile")

// ask100 sends requests for as long as the round lasts, 100 at most.
func (v *victim) ask100() {
	for n := range 100 {
		select {
		case <-v.enough:
			return
		default:
		}
		ctx, cancel := brief()
		if n%3 > 0 {
			_ = v.calls.call(ctx, grpc.WaitForReady(true))
		} else if id := v.calls.mark(); v.calls.sendMarked(ctx, id, grpc.WaitForReady(true)) != nil || n%2 == 0 {
			_ = v.calls.sendMarked(ctx, id, grpc.WaitForReady(true)) // again, whether acknowledged or not
		}
		cancel()
	}
}

// guests are the services of the registered endpoint. The last one gets no heartbeat.
var guests = []string{"guest.A", "guest.B", "guest.C"}

// relay100 calls workers and the guest for as long as the round lasts, 100 times at most.
func (v *victim) relay100() {
	for n := range 100 {
		select {
		case <-v.enough:
			return
		default:
		}
		ctx, cancel := brief()
		_ = v.calls.relay(ctx, echo.Service, n%3 == 0, grpc.WaitForReady(true))
		_ = v.calls.relay(ctx, guests[n%len(guests)], n%4 == 0, grpc.WaitForReady(true))
		cancel()
	}
}

// holdStreams keeps a stream open for as long as the round lasts, and opens another one if it breaks, 100 at most.
func (v *victim) holdStreams(service string) {
	for range 100 {
		ctx, cancel := brief()
		s, err := v.calls.openStream(ctx, service, grpc.WaitForReady(true))
		for err == nil {
			select {
			case <-v.enough:
				_ = s.finish()
				cancel()
				return
			default:
				err = s.exchange("slow message")
			}
		}
		cancel()
		select {
		case <-v.enough:
			return
		case <-time.After(5 * time.Millisecond): // it calls again, but not at once
		}
	}
}

// visit changes a registration. It may fail if the master is in trouble: then the change may have been made or not.
func (v *victim) visit(a, b int) error {
	service := guests[a%2]
	switch b % 6 {
	case 0, 1:
		v.did("endpoint registered", service)
		_ = v.registrations.register(service, []time.Duration{0, time.Hour}[a/2%2])
	case 2:
		v.did("endpoint deregistered", service)
		_ = v.registrations.deregister(service)
	case 3:
		v.did("endpoint renewed", service)
		_ = v.registrations.heartbeat(service)
	case 4:
		v.did("endpoint let expire", guests[2])
		_ = v.registrations.register(guests[2], fleeting)
	default:
		v.did("endpoint gone for a moment", "")
		v.registrations.endpoint.leave()
		v.masters.pause(time.Duration(b%40) * time.Millisecond)
		return v.registrations.invite()
	}
	return nil
}

// trouble performs n acts. Each is drawn before the check whether it is possible, so that the sequence follows from
// the seed.
func (v *victim) trouble(n int) error {
	for range n {
		kind, a, b := v.rng.IntN(230), v.rng.IntN(1<<20), v.rng.IntN(1<<20)
		act := ""
		if kind >= firstOfOperator {
			act = v.operator.draw(v.rng)
		}
		if err := v.reap(); err != nil {
			return err
		}
		err := v.whileUp(kind, act, a, b)
		if v.masters.running == nil {
			err = errors.Join(err, v.whileDown(a, b))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reap handles the end of a master at a crash point.
func (v *victim) reap() error {
	if v.masters.running == nil || !v.masters.running.over() {
		return nil
	}
	if err := v.masters.buried(true); err != nil {
		return err
	}
	return v.afterDeath(v.mayEnd)
}

// afterDeath checks the state that a dead master has left.
func (v *victim) afterDeath(mayEnd func(worker string) bool) error {
	v.tally.mu.Lock()
	v.tally.checks++
	v.tally.mu.Unlock()
	o, err := v.inspect(mayEnd)
	errs := []error{err}
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	v.companions.checkDue(o.records, fail)
	v.excuseUnheard(o)
	return errors.Join(errs...)
}

// firstOfOperator is the first kind of the acts of the operator.
const firstOfOperator = 145

// whileUp does an act that is only possible while a master runs: act, or the one of that kind.
func (v *victim) whileUp(kind int, act string, a, b int) error {
	if v.masters.running == nil {
		return nil
	}
	worker := v.anyWorker(a)
	switch {
	case act != "":
		return v.operate(act, a)
	case kind >= 140:
		v.grow()
		return nil
	case kind >= 130:
		v.did("gate and dependents killed", "")
		v.strikeDependents(a)
		if kind < 135 {
			return nil
		}
		v.did("master killed while their commands may run", "")
		v.masters.pause(time.Duration(b%400) * time.Millisecond)
		return errors.Join(v.masters.kill(), v.afterDeath(v.mayEnd))
	case kind >= 122, kind >= 100 && !v.fromFile:
		return v.scale(3 + b%10)
	case kind >= 100:
		return v.changeFile(a, b)
	case kind < 20:
		v.did("master killed", "")
		v.masters.pause(time.Duration(b%40) * time.Millisecond)
		return errors.Join(v.masters.kill(), v.afterDeath(v.mayEnd))
	case kind < 35:
		points := crashpoint.All()
		p := points[a%len(points)]
		at := moment{p.Before(), 1 + b%3}
		if b%2 == 0 {
			at.name = p.After()
		}
		v.did("crash point armed", at.String())
		return v.masters.arm(at)
	case kind < 55:
		v.did("worker killed", worker)
		v.strike(worker)
		return nil
	case kind < 60:
		for range 3 {
			v.did("worker killed", worker)
			v.strike(worker)
			v.masters.pause(time.Duration(b%20) * time.Millisecond)
		}
		return nil
	case kind < 70:
		v.did("worker suspended", worker)
		return v.suspend(worker)
	case kind < 75:
		v.did("master suspended for a moment", "")
		_ = v.masters.running.cmd.Process.Signal(syscall.SIGSTOP)
		v.masters.pause(time.Duration(b%200) * time.Millisecond)
		_ = v.masters.running.cmd.Process.Signal(syscall.SIGCONT)
		return nil
	case kind < 82:
		v.did("detached", "")
		return v.leave(syscall.SIGUSR1)
	case kind < 88:
		v.did("stopped in order", "")
		return v.leave(syscall.SIGTERM)
	case kind < 95:
		return v.visit(a, b)
	default:
		faults := []string{"commit", "count", "count-sync", "rewrite-sync", "fork", "log-open", "lease", "after-commit"}
		errnos := []string{"EIO", "ENOSPC", "EMFILE"}
		name, errno := faults[a%len(faults)], errnos[b%len(errnos)]
		v.did("act failed for a moment", name+" "+errno)
		if err := v.masters.fault(name, errno); err != nil {
			return err
		}
		v.masters.pause(time.Duration(b%150) * time.Millisecond)
		return errors.Join(v.masters.fault(name, ""), v.companions.excuse())
	}
}

// leave ends the master with a signal. A stop ends all workers, or some of them if an armed crash point ends the
// master first.
func (v *victim) leave(signal syscall.Signal) error {
	return v.leaveBy(signal, func() { _ = v.masters.running.cmd.Process.Signal(signal) })
}

// leaveBy ends the master by a function that has the effect of the signal.
func (v *victim) leaveBy(signal syscall.Signal, end func()) error {
	// Before the master handles signals, they end it like any program.
	if ended, err := v.masters.await("the master holds the state", v.holds); err != nil || ended {
		return errors.Join(err, v.reap())
	}
	began, inForce := sinceBoot(), v.companions.inForce > 0
	end()
	killed := false
	select {
	case <-v.masters.running.ended:
		status := v.masters.running.cmd.ProcessState.Sys().(syscall.WaitStatus)
		killed = status.Signaled()
	case <-time.After(harness.Patience):
	}
	mayEnd := v.mayEnd
	if signal == syscall.SIGTERM {
		mayEnd = func(string) bool { return true }
	}
	err := errors.Join(v.masters.buried(killed), v.afterDeath(mayEnd))
	if living := v.workers.scan(); signal == syscall.SIGTERM && !killed && len(living) > 0 {
		err = errors.Join(err, fmt.Errorf("workers have outlived the stop: %+v", living))
	}
	if signal == syscall.SIGTERM && inForce {
		n, err2 := v.companions.checkStopped(began)
		v.tally.add(func(c *score) { c.stops += n })
		err = errors.Join(err, err2)
	}
	return err
}

func (v *victim) holds() error {
	moments, err := v.masters.passed()
	if err == nil && moments[crashpoint.Lock.After()] == 0 {
		err = errors.New("not yet")
	}
	return err
}

// mayEnd reports whether the worker may die without a reason.
func (v *victim) mayEnd(worker string) bool {
	return moody(worker) || v.workers.isSurplus(worker) || v.operator.acted[worker]
}

// strike kills a worker, if it has a process.
func (v *victim) strike(worker string) {
	for _, b := range leadersOf(v.workers.scan())[worker] {
		if v.workers.ended[b.token] {
			continue
		}
		v.workers.ended[b.token] = true
		e := v.workers.ledger[worker]
		e.deaths++
		v.workers.ledger[worker] = e
		v.workers.dying = append(v.workers.dying, b)
		b.signal(unix.SIGKILL)
		if strings.HasPrefix(worker, gate+"-") {
			v.companions.ended = append(v.companions.ended, sinceBoot())
		}
	}
}

func (v *victim) suspend(worker string) error {
	for _, b := range leadersOf(v.workers.scan())[worker] {
		v.suspended[b.token] = true
		if strings.HasPrefix(worker, once+"-") { // it may be starting, for longer than it may
			v.workers.excuse(b)
		}
		b.signal(unix.SIGSTOP)
	}
	return nil
}

// whileDown does an act that is only possible while no master runs, and starts a master.
func (v *victim) whileDown(a, b int) error {
	if a%3 == 0 {
		v.did("started with another count", "")
		v.workers.configured = 3 + b%10
	}
	if a%5 == 0 {
		v.did("gate and dependents killed while no master runs", "")
		v.strikeDependents(b)
	}
	if a%7 < 2 {
		v.fromFile = !v.fromFile
		v.did("started with the file or without", fmt.Sprint(v.fromFile))
	}
	if worker := fmt.Sprintf("worker-%d", b%v.workers.count); a%4 == 1 && !moody(worker) {
		if err := v.deceive(worker); err != nil {
			return err
		}
	}
	if b%5 == 0 {
		v.did("started with another sync", "")
		sync := []string{"--sync", []string{"always", "interval"}[a%2]}
		v.flags, v.always = append(v.flags, sync...), append(v.companions.registry(), sync...)
	}
	var at moment
	if b%4 == 0 {
		points := crashpoint.All()
		at = moment{points[a%len(points)].Before(), 1 + b%2}
		v.did("killed while it recovers", at.String())
	}
	return v.launch(at)
}

// deceive kills a worker while no master runs, and puts a foreign process in its place.
func (v *victim) deceive(worker string) error {
	leaders := leadersOf(v.workers.scan())[worker]
	snap, err := readState(v.state)
	if err != nil || len(leaders) != 1 {
		return nil //nolint:nilerr // there is no state yet
	}
	for _, w := range snap.Workers {
		if w.ID != worker || w.Instance == nil || w.Instance.PID != leaders[0].pid {
			continue
		}
		v.did("stranger on a recorded PID and port", worker)
		v.suspended[leaders[0].token] = false
		v.strike(worker)
		if err := v.workers.gone(); err != nil {
			return err
		}
		return v.plant(worker)
	}
	return nil
}

// calm ends all trouble and waits until the workers with good habits are ready.
func (v *victim) calm() error {
	if err := v.masters.soundAgain(); err != nil {
		return err
	}
	for _, b := range v.workers.scan() {
		if v.suspended[b.token] && b.leader {
			b.signal(unix.SIGCONT)
		}
	}
	deadline := time.Now().Add(2 * harness.Patience)
	for {
		if err := v.reap(); err != nil {
			return err
		}
		if v.masters.running == nil {
			if err := v.launch(moment{}); err != nil {
				return err
			}
		}
		ended, err := v.masters.await("the workers with good habits run", func() error {
			state, err := v.rig.admin.ask()
			if err != nil {
				return err
			}
			watched := v.reportsWatched(state)
			rolled := v.hasRolled(rolloutCompleted, rolloutStopped, reloadCompleted, reloadFailed)
			return errors.Join(v.applied(state), watched, v.resumed(state), v.settled(state), rolled)
		})
		if err == nil && !ended {
			v.mayWatch = false
			if v.companions.inForce == 0 && v.workers.companions > 0 {
				v.companions.inForce = sinceBoot()
			}
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(errors.New("no rest"), err)
		}
	}
}

func (v *victim) settled(state *adminpb.State) error {
	companions := len(companionUnits) * v.workers.companions
	wanted := v.workers.count + v.workers.sleepers + companions
	if state.GetStatus() != "running" || len(state.GetWorkers()) != wanted {
		return fmt.Errorf("%s, %d workers, want %d, %d without a port, and %d companions", state.GetStatus(),
			len(state.GetWorkers()), v.workers.count, v.workers.sleepers, companions)
	}
	healthy := map[string]bool{}
	for _, s := range state.GetServices() {
		for _, e := range s.GetEndpoints() {
			healthy[e.GetWorker()] = healthy[e.GetWorker()] || e.GetHealthy()
		}
	}
	leaders := leadersOf(v.workers.scan())
	for _, w := range state.GetWorkers() {
		healthy[w.GetId()] = healthy[w.GetId()] || portless(w.GetId()) // it offers nothing
		// The master may not have noticed the death of a worker yet.
		now := leaders[w.GetId()]
		if !moody(w.GetId()) && (v.workers.ended[w.GetToken()] || w.GetStatus() != "running" || !healthy[w.GetId()] ||
			len(now) == 0 || now[0].pid != int(w.GetPid())) {
			return fmt.Errorf("%v, it is %v", w, now)
		}
	}
	return nil
}

// robbed returns how often, according to the last masters' logs, a process outside of this test had taken the port
// that was chosen for the worker before the worker could: that costs a start.
func (v *victim) robbed(worker string) (times uint64) {
	now, _ := os.ReadFile(v.masters.running.log)
	for _, log := range append(slices.Clone(v.masters.logs), string(now)) {
		for line := range strings.Lines(log) {
			if strings.Contains(line, `"msg":"worker backoff","worker":"`+worker+`"`) &&
				strings.Contains(line, "is held by another process") {
				times++
			}
		}
	}
	return times
}

// compare compares the master's present and earlier reports with the actual state.
func (v *victim) compare() error {
	state, err := v.rig.admin.ask()
	if err != nil && v.masters.dies() {
		return errDied
	}
	if err != nil {
		return err
	}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := v.reportsWatched(state); err != nil {
		fail("%w", err)
	}
	living := v.workers.scan()
	if len(v.workers.commands) > 0 {
		fail("commands of an earlier master live: %+v", v.workers.commands)
	}
	leaders := leadersOf(living)
	tokens := map[string]bool{}
	noted, err := v.workers.instancesNoted()
	if err != nil {
		fail("%w", err)
	}
	beings, started, replaced := map[string]being{}, 0, map[string]bool{}
	for _, w := range state.GetWorkers() {
		now, id := leaders[w.GetId()], w.GetId()
		tokens[w.GetToken()] = true
		started += int(w.GetIncarnation()) //nolint:gosec // the number is small
		if len(now) > 1 {
			fail("%s lives twice: %+v", id, now)
		}
		// A master may just end it, for a reason that the test knows.
		replaced[id] = v.workers.excused[w.GetToken()] || len(now) > 0 && v.workers.excused[now[0].token]
		if moody(id) || replaced[id] {
			continue
		}
		if len(now) != 1 || now[0].pid != int(w.GetPid()) || now[0].token != w.GetToken() ||
			now[0].port != int(w.GetPort()) {
			fail("%s is said to be %v, and is %+v", id, w, now)
			continue
		}
		was := v.workers.ledger[id]
		if v.workers.isSurplus(id) { // it may have been removed meanwhile, and created again
			was.deaths += was.restarts
			was.restarts, was.incarnation = 0, 0
		}
		_, most := was.restartsBy(noted[id])
		if most += v.robbed(id); w.GetRestarts() < was.restarts || w.GetRestarts() > most {
			fail("%s: %d restarts, %d before, and there can be %d by now", id, w.GetRestarts(), was.restarts, most)
		}
		if w.GetIncarnation() < was.incarnation || w.GetDesired() != "running" {
			fail("%s: incarnation %d was %d, desired %s", id, w.GetIncarnation(), was.incarnation, w.GetDesired())
		}
		b := now[0]
		if !portless(id) {
			if b.memory, err = v.workers.memoryOf(b.port); err != nil {
				fail("%s does not answer by itself: %w", id, err)
			}
		}
		if was, known := v.workers.beings[b.token]; known &&
			(was.memory != "" && was.memory != b.memory || was.pid != b.pid || was.born != b.born) {
			fail("%s is not what it was: %+v, was %+v", id, b, was)
		}
		beings[b.token] = b
		v.countTeller(w)
		v.workers.ledger[id] = entry{
			restarts: w.GetRestarts(), incarnation: w.GetIncarnation(), portTaken: noted[id].portTaken,
		}
	}
	for token, b := range v.workers.beings {
		if _, lives := beings[token]; !lives && !v.workers.ended[token] && !b.doomed && !v.mayEnd(b.worker) &&
			!v.workers.excused[token] && !v.workers.lostPort(b) {
			fail("%s has died, and nobody was to end it: %+v", b.worker, b)
		}
	}
	for _, b := range living {
		if !tokens[b.token] && !moody(b.worker) && !replaced[b.worker] {
			fail("an orphan: %+v", b)
		}
	}
	v.checkTurns(living, fail)
	v.checkCompanions(living, fail)
	v.workers.least, v.workers.leastSleepers = v.workers.count, v.workers.sleepers
	v.workers.leastCompanions = v.workers.companions
	for id := range v.workers.ledger {
		if v.workers.isSurplus(id) {
			if err := v.workers.forget(id); err != nil {
				fail("%w", err)
			}
		}
	}
	v.workers.beings, v.workers.verbs.expected = beings, false
	v.operator.forget()
	if err := v.calls.check(v.notes, state.GetProcessedCount()); err != nil {
		fail("%w", err)
	}
	if err := v.decoy.Untouched(); err != nil {
		fail("%w", err)
	}
	v.registrations.checkReported(state, fail)
	sent, acked := v.calls.totals()
	v.calls.mu.Lock()
	messages, answered, streams := len(v.calls.relayed.sent), len(v.calls.relayed.acked), v.calls.relayed.streams
	v.calls.mu.Unlock()
	v.tally.mu.Lock()
	defer v.tally.mu.Unlock()
	v.tally.rounds++
	v.tally.checks++
	v.tally.sent += sent - v.last.sent
	v.tally.acked += acked - v.last.acked
	v.tally.counted += state.GetProcessedCount() - v.last.counted
	v.tally.instances += max(0, started-v.last.started)
	v.tally.messages += messages - v.last.messages
	v.tally.answered += answered - v.last.answered
	v.tally.streams += streams - v.last.streams
	v.last.sent, v.last.acked, v.last.started, v.last.counted = sent, acked, started, state.GetProcessedCount()
	v.last.messages, v.last.answered, v.last.streams = messages, answered, streams
	return errors.Join(errs...)
}

// checkCompanions checks the notes of the companions and of the commands of the sleepers.
func (v *victim) checkCompanions(living []being, fail func(string, ...any)) {
	var gated []being
	if v.companions.gatesWorks {
		gated = slices.DeleteFunc(slices.Clone(living), func(b being) bool {
			return !b.leader || !strings.HasPrefix(b.worker, "worker-")
		})
	}
	dependents := v.companions.checkOrder(gated, fail)
	runs := v.companions.checkRuns(fail)
	commands := v.companions.checkHooks(fail)
	v.tally.add(func(c *score) {
		c.dependents += dependents
		c.runs += runs - v.last.runs
		c.commands += commands - v.last.commands
	})
	v.last.runs, v.last.commands = runs, commands
}

// totals returns the numbers of sent and acknowledged requests.
func (c *calls) totals() (sent, acked int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sent), len(c.acked)
}

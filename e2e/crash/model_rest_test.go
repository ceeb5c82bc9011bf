//go:build e2e && linux && (crash || torture)

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/e2e/harness"
)

// Checks of a recovered master's reports against the actual state.

func (r *rig) serves() error {
	n, err := r.passed()
	if err == nil && n["after-serving"] == 0 {
		err = errors.New("it does not serve")
	}
	return err
}

// atRest reports, by the passed moments, whether the running master has finished with its workers.
func (r *rig) atRest(removals int) error {
	if err := r.serves(); err != nil {
		return err
	}
	n, err := r.passed()
	if err != nil {
		return err
	}
	if got := n["after-publish"] - n["after-withdraw"]; got != r.count {
		return fmt.Errorf("%d of %d workers are in rotation", got, r.count)
	}
	if n["after-removal"] < removals {
		return fmt.Errorf("%d of %d workers are removed", n["after-removal"], removals)
	}
	return nil
}

// surplus returns the number of recorded workers that the next launch has to remove.
func (r *rig) surplus(o offline) int {
	n := 0
	for _, w := range o.records {
		if r.isSurplus(w.ID) {
			n++
		}
	}
	return n
}

// recovered starts a sound master on the present state and checks, once it is at rest, that every promise was kept.
func (r *rig) recovered(before offline) error {
	if err := r.launch(moment{}); err != nil {
		return err
	}
	removals, routes := r.surplus(before), r.atServing(before)
	if ended, err := r.await("SERVING", r.serves); err != nil || ended {
		return errors.Join(err, fmt.Errorf("the master after the crash does not serve (it ended: %v)", ended))
	}
	if err := r.checkServing(routes); err != nil {
		return err
	}
	if ended, err := r.await("all workers in rotation",
		func() error { return r.atRest(removals) }); err != nil || ended {
		return errors.Join(err, fmt.Errorf("the master after the crash is not at rest (it ended: %v)", ended))
	}
	r.damaged = false
	return r.wellAtRest(before)
}

// wellAtRest compares the running master's report with the actual state.
func (r *rig) wellAtRest(before offline) error {
	var state *adminpb.State
	ended, err := r.await("all workers run", func() (err error) {
		if state, err = r.ask(); err != nil {
			return err
		}
		return r.allRunning(state)
	})
	if err != nil || ended {
		return errors.Join(err, fmt.Errorf("the master's word after the crash (it ended: %v): %v", ended, state))
	}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	living := r.scan()
	leaders := leadersOf(living)
	r.checkWord(state, leaders, fail)
	for _, b := range before.living {
		if !b.leader || r.known.beings[b.token].doomed || r.lostPort(b) {
			continue
		}
		if now := leaders[b.worker]; len(now) != 1 || now[0].pid != b.pid || now[0].token != b.token ||
			now[0].born != b.born {
			fail("%s was alive as %+v, and is %+v now: no survivor", b.worker, b, now)
		}
	}
	for _, b := range living {
		if !slices.ContainsFunc(state.GetWorkers(), func(w *adminpb.Worker) bool { return w.GetToken() == b.token }) {
			fail("a process of no worker lives: %+v", b)
		}
	}
	if err := r.remember(state, leaders); err != nil {
		fail("%w", err)
	}
	if r.recovery, err = r.passed(); err != nil {
		fail("%w", err)
	}
	if err := r.calls.check(r.notes, state.GetProcessedCount()); err != nil {
		fail("%w", err)
	}
	// The next inspection of the state shows whether it was counted.
	ctx, cancel := brief()
	defer cancel()
	if err := r.call(ctx, grpc.WaitForReady(true)); err != nil {
		fail("a request after the crash: %w", err)
	}
	r.checkRoutes(state, living, fail)
	if bytes.Contains(fmt.Append(nil, state), []byte(r.secret)) {
		fail("the dump holds a secret: %v", state)
	}
	if r.decoy != nil {
		if err := r.decoy.Untouched(); err != nil {
			fail("%w", err)
		}
	}
	return errors.Join(errs...)
}

// allRunning fails until each wanted worker is reported as running and gets requests.
func (r *rig) allRunning(state *adminpb.State) error {
	if got := len(state.GetWorkers()); got != r.count {
		return fmt.Errorf("there are %d workers, want %d", got, r.count)
	}
	healthy := map[string]bool{}
	for _, s := range state.GetServices() {
		for _, e := range s.GetEndpoints() {
			healthy[e.GetWorker()] = healthy[e.GetWorker()] || e.GetHealthy()
		}
	}
	for _, w := range state.GetWorkers() {
		if w.GetStatus() != "running" || w.GetPid() == 0 || !healthy[w.GetId()] {
			return fmt.Errorf("%s: %v", w.GetId(), w)
		}
	}
	return nil
}

// checkWord compares the master's report of each worker with the processes, and with its earlier reports.
func (r *rig) checkWord(state *adminpb.State, leaders map[string][]being, fail func(string, ...any)) {
	noted, err := r.instancesNoted()
	if err != nil {
		fail("%w", err)
	}
	for _, w := range state.GetWorkers() {
		now := leaders[w.GetId()]
		if len(now) != 1 || now[0].pid != int(w.GetPid()) || now[0].token != w.GetToken() ||
			now[0].port != int(w.GetPort()) {
			fail("%s is said to be %v, and is %+v", w.GetId(), w, now)
		}
		was := r.known.ledger[w.GetId()]
		n := noted[w.GetId()]
		if least, most := was.restartsBy(n); w.GetRestarts() < least || w.GetRestarts() > most {
			fail("%s: %d restarts, want %d to %d", w.GetId(), w.GetRestarts(), least, most)
		}
		if w.GetIncarnation() < was.incarnation || int(w.GetIncarnation()) < n.all-r.known.noted[w.GetId()] {
			fail("%s: incarnation %d, it was %d, and %d instances have taken notes",
				w.GetId(), w.GetIncarnation(), was.incarnation, n.all)
		}
		if w.GetDesired() != "running" {
			fail("%s: desired is %q", w.GetId(), w.GetDesired())
		}
	}
}

// remember makes the present state the expected one, and checks that the workers' memory is unchanged.
func (r *rig) remember(state *adminpb.State, leaders map[string][]being) error {
	var errs []error
	beings := map[string]being{}
	for id, all := range leaders {
		for _, b := range all {
			memory, err := r.memoryOf(b.port)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s does not answer by itself: %w", id, err))
			}
			b.memory = memory
			if was := r.known.beings[b.token]; was.memory != "" && was.memory != b.memory {
				errs = append(errs, fmt.Errorf("%s has lost its memory: %+v, was %+v", id, b, was))
			}
			beings[b.token] = b
		}
	}
	r.known.beings = beings
	noted, err := r.instancesNoted()
	if err != nil {
		errs = append(errs, err)
	}
	for _, w := range state.GetWorkers() {
		r.known.ledger[w.GetId()] = entry{
			restarts: w.GetRestarts(), incarnation: w.GetIncarnation(), portTaken: noted[w.GetId()].portTaken,
		}
	}
	return errors.Join(errs...)
}

// memoryOf asks the worker on the port directly, without a master, for facts that only it knows.
func (r *rig) memoryOf(port int) (string, error) {
	conn := r.own[port]
	if conn == nil {
		var err error
		if conn, err = quickDial("passthrough:///" + harness.Loopback(port)); err != nil {
			return "", err
		}
		r.own[port] = conn
	}
	ctx, cancel := brief()
	defer cancel()
	answer, err := proto.NewMyBusinessServiceClient(conn).GetStatus(ctx, &proto.StatusRequest{},
		grpc.WaitForReady(true))
	return answer.GetStatus(), err
}

//go:build e2e && linux && (crash || torture)

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
)

// Checks of a recovered master's reports against the actual state.

// atRest reports, by the passed moments, whether the running master has finished with its workers.
func (r *rig) atRest(removals int) error {
	if err := r.masters.serves(); err != nil {
		return err
	}
	n, err := r.masters.passed()
	if err != nil {
		return err
	}
	if got := n["after-publish"] - n["after-withdraw"]; got != r.workers.verbs.running(r.workers.count) {
		return fmt.Errorf("%d of %d workers are in rotation", got, r.workers.verbs.running(r.workers.count))
	}
	if n["after-removal"] < removals {
		return fmt.Errorf("%d of %d workers are removed", n["after-removal"], removals)
	}
	return nil
}

// hasRolled returns nil when the running master has ended the rollouts of the one before, with one of the outcomes.
func (r *rig) hasRolled(outcomes ...string) error {
	logs := r.masters.lastLogs()
	logged := func(outcome string) bool { return strings.Contains(logs[len(logs)-1], outcome) }
	if r.rolls && !slices.ContainsFunc(outcomes, logged) {
		return errors.New("the rollout has not ended")
	}
	return nil
}

// Outcomes of a rollout, as they are logged.
const (
	rolloutCompleted = "rollout completed"
	rolloutStopped   = "rollout stopped"
	// A reload before the rollout is resumed takes its place.
	reloadCompleted = "units reloaded"
	reloadFailed    = "reload failed"
)

// recovered starts a sound master on the present state and checks, once it is at rest, that every promise was kept.
func (r *rig) recovered(before offline) error {
	if err := r.launch(moment{}); err != nil {
		return err
	}
	removals, routes := r.workers.surplus(before), r.atServing(before)
	if ended, err := r.masters.await("SERVING", r.masters.serves); err != nil || ended {
		return errors.Join(err, fmt.Errorf("the master after the crash does not serve (it ended: %v)", ended))
	}
	if err := r.checkServing(routes); err != nil {
		return err
	}
	if ended, err := r.masters.await("all workers in rotation",
		func() error { return errors.Join(r.atRest(removals), r.hasRolled(rolloutCompleted)) }); err != nil || ended {
		return errors.Join(err, fmt.Errorf("the master after the crash is not at rest (it ended: %v)", ended))
	}
	r.damaged, r.mayWatch = false, false
	return r.wellAtRest(before)
}

// wellAtRest compares the running master's report with the actual state.
func (r *rig) wellAtRest(before offline) error {
	var state *adminpb.State
	ended, err := r.masters.await("all workers run", func() (err error) {
		if state, err = r.admin.ask(); err != nil {
			return err
		}
		if err := r.reportsWatched(state); err != nil {
			return err
		}
		if err := r.scheduled.waits(state); err != nil {
			return err
		}
		return errors.Join(r.workers.allRunning(state), r.swept())
	})
	if err != nil || ended {
		return errors.Join(err, fmt.Errorf("the master's word after the crash (it ended: %v): %v", ended, state))
	}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	living := r.workers.scan()
	leaders := leadersOf(living)
	r.workers.checkReport(state, leaders, fail)
	for _, b := range before.living {
		if !b.leader || r.workers.beings[b.token].doomed || r.workers.lostPort(b) {
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
	if left := r.workers.overdue(); len(left) > 0 {
		fail("commands of an earlier master live: %+v", left)
	}
	if err := errors.Join(r.hooks.check(), r.events.check()); err != nil {
		fail("%w", err)
	}
	if err := r.workers.remember(state, leaders); err != nil {
		fail("%w", err)
	}
	if r.recovery, err = r.masters.passed(); err != nil {
		fail("%w", err)
	}
	if err := r.calls.check(r.notes, state.GetProcessedCount()); err != nil {
		fail("%w", err)
	}
	// The next inspection of the state shows whether it was counted.
	ctx, cancel := brief()
	defer cancel()
	err = r.calls.call(ctx, grpc.WaitForReady(true))
	if disabled := r.workers.recorded.Disabled; disabled && status.Code(err) != codes.Unavailable {
		fail("a request to a disabled unit: %w", err)
	} else if !disabled && err != nil {
		fail("a request after the crash: %w", err)
	}
	r.checkRoutes(state, living, fail)
	if bytes.Contains(fmt.Append(nil, state), []byte(r.masters.secret)) {
		fail("the dump holds a secret: %v", state)
	}
	if r.decoy != nil {
		if err := r.decoy.Untouched(); err != nil {
			fail("%w", err)
		}
	}
	return errors.Join(errs...)
}

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

const (
	// recoverTimeout limits the recovery of one worker; all are recovered in parallel.
	recoverTimeout = 5 * time.Second
	// holdInterval is the interval at which a worker that cannot be verified is checked again.
	holdInterval = time.Second
)

// recover creates the workers from the wanted, recorded and living ones, starts their goroutines and waits until
// each has recovered.
func (s *Supervisor) recover(ctx, work context.Context) error {
	snap, err := s.registry(ctx)
	if err != nil {
		return fmt.Errorf("read the registry: %w", err)
	}
	for key, err := range snap.Bad {
		s.log.Error("record not readable, its worker is looked for among the processes", "record", key, "error", err)
	}
	s.recovery = s.newRecoveryContext()
	holders, scanErr := s.scan(ctx)
	if scanErr != nil {
		s.log.Error("processes not scanned", "error", scanErr)
	}
	slots := s.recovery.slots(snap.Workers, s.units, false)
	strays := s.recovery.assign(slots, holders, scanErr)
	if s.recovery.moved {
		if err := s.acceptMove(ctx, slots); err != nil {
			return err
		}
	}
	for _, stray := range decideStrays(strays) {
		// The ID comes from the process's environment and may be anything: quote and truncate it.
		stray.decision.log(s.log.With("worker", fmt.Sprintf("%.64q", stray.decision.ID)))
		s.strays.Go(func() { s.sweepStray(work, stray.token) })
	}
	workers := make([]*worker, 0, len(slots))
	for i, slot := range slots {
		w := newWorker(s, slot, i)
		if w.rec.Port != 0 {
			s.ports.keep(w.id, w.rec.Port)
		}
		workers = append(workers, w)
	}
	s.mu.Lock()
	s.workers = workers
	s.mu.Unlock()

	for _, w := range workers {
		go w.serve(work)
	}
	for _, w := range workers {
		select {
		case <-w.recovered:
		case <-ctx.Done():
			return nil // Serve stops the workers
		}
	}
	return nil
}

// registryRetry is the interval of retries while the registry cannot be read.
const registryRetry = 20 * time.Millisecond

// registry reads the records. While the store rewrites its state after a failed write, registry retries: living
// workers need a master, so it must not give up.
func (s *Supervisor) registry(ctx context.Context) (store.Snapshot, error) {
	for told := false; ; {
		snap, err := s.opts.Store.Snapshot()
		if !errors.Is(err, store.ErrUnavailable) {
			return snap, err
		}
		if !told {
			told = true
			s.log.Error("registry not readable yet, trying on", "error", err)
		}
		select {
		case <-time.After(registryRetry):
		case <-ctx.Done():
			return snap, err
		}
	}
}

// newRecoveryContext returns the context of a recovery that begins now.
func (s *Supervisor) newRecoveryContext() *recoveryContext {
	return &recoveryContext{
		inspector: s.launcher,
		scan:      s.scan,
		kept: func(token string) (process.Exit, bool) {
			handle := s.opts.Keeper.Kept(token)
			if handle == nil {
				return process.Exit{}, false
			}
			return process.ExitOf(handle)
		},
		masterID: s.opts.Store.MasterID(),
		stateDir: process.FileID(s.opts.Store.StateDirID()).String(),
		bootID:   s.bootID,
		uid:      os.Geteuid(),
		moved:    s.opts.Store.Moved(),
		now:      s.bootTime,
	}
}

// acceptMove deletes the records of another state directory's instances before the first worker of this one is
// started. Otherwise, after a crash in between, the next master would take this directory's workers for the
// other's.
func (s *Supervisor) acceptMove(ctx context.Context, slots []slot) error {
	s.log.Warn("state directory was copied or moved: the workers of the original were left alone")
	var muts []store.Mutation
	for _, slot := range slots {
		if rec := slot.rec; rec.Instance != nil && !slot.found.shows(rec.Instance.Token) {
			rec.Instance = nil
			muts = append(muts, store.PutWorker(rec))
		}
	}
	if err := s.opts.Store.Apply(ctx, muts...); err != nil {
		return fmt.Errorf("forget the original's workers: %w", err)
	}
	if err := s.opts.Store.AcceptMove(ctx); err != nil {
		return fmt.Errorf("record the state directory's new place: %w", err)
	}
	return nil
}

func (s *Supervisor) sweepStray(ctx context.Context, token string) {
	bounded, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	left, err := s.launcher.sweep(bounded, "", store.Instance{Token: token})
	if ctx.Err() == nil && (err != nil || len(left) > 0) {
		s.log.Error("process without a slot not stopped", "left", len(left), "error", err)
	}
}

// recover determines what became of the recorded instance, decides what to do and executes it. If that is not
// possible now, the worker is held and recovers again later.
func (w *worker) recover(ctx context.Context) {
	defer w.endRecovery()
	bounded, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	inspect := func() (facts, instance) {
		s := slot{
			id: w.id, unit: w.unit, recorded: w.journal.saved.ID != "", rec: w.rec, state: w.state, found: w.found,
		}
		f, inst := w.sup.recovery.inspect(bounded, &s)
		w.found = s.found
		return f, inst
	}
	f, inst := inspect()
	if errors.Is(f.cause, process.ErrLeaseHeld) {
		// The holder may be too short-lived to be found by an inspection.
		if err := w.remnants().kill(bounded, *w.rec.Instance); err == nil {
			f, inst = inspect()
		}
	}
	if ctx.Err() != nil { // the master has ended meanwhile
		if inst != nil {
			_ = inst.Close()
		}
		return
	}
	d := decide(f)
	if w.decided.Action != d.Action || w.decided.Reason != d.Reason {
		w.decided = d
		d.log(w.log)
	}
	w.execute(ctx, bounded, d, inst)
}

// execute carries out a decision. inst is the process that it is about, or nil. If the decision cannot be carried
// out, the worker is held.
func (w *worker) execute(ctx, bounded context.Context, d Decision, inst instance) {
	w.leftover = nil
	switch d.Action {
	case ActionHold:
		w.hold(ctx, d.orders.cause)
	case ActionAdopt, ActionAdoptUnhealthy, ActionStop:
		w.keep(ctx, bounded, d.orders, inst)
	case ActionStart, ActionRespawn, ActionWait, ActionFail, ActionKeepFailed, ActionKeepStopped, ActionForget:
		w.vacate(ctx, bounded, d.orders, inst)
	case ActionSweepStray: // concerns no worker
	}
}

// takeOver makes the process that was found the recorded instance. If the recorded instance is another one that cannot
// be ended, it holds the worker and returns false.
func (w *worker) takeOver(ctx, bounded context.Context, o orders, inst instance) bool {
	if o.unrecorded {
		if o.clearRecorded && !w.clear(ctx, bounded, o.instance.Token) {
			_ = inst.Close()
			return false
		}
		w.rec.Incarnation++
		w.rec.Port = o.instance.Port
		w.journal.add(w.event(store.EventFromProcesses,
			fmt.Sprintf("process %d is newer than what is recorded", o.instance.PID)))
	}
	if o.instance != nil {
		w.rec.Instance = o.instance
	}
	w.state = o.from
	w.remnants().killOthers(bounded, w.rec.Instance.Token)
	return true
}

// keep adopts a living process, also to stop it. It pings a worker that was running, and waits for one that was
// starting as for any other start.
func (w *worker) keep(ctx, bounded context.Context, o orders, inst instance) {
	if !w.takeOver(ctx, bounded, o, inst) {
		return
	}
	crashpoint.Pass(crashpoint.Adopt, func() { w.took(inst, true) })
	w.sup.ports.keep(w.id, w.rec.Instance.Port)
	// The recorded services are of this instance, or of one like it, so its routes are available at once.
	w.routes.confirmed = o.ping
	if !o.ping {
		w.step(ctx, event{kind: evAdoptedSilent})
		return
	}
	err := w.reconnect(ctx, bounded, o.silent)
	if err == nil {
		w.step(ctx, event{kind: evAdopted})
	} else {
		w.step(ctx, event{kind: evAdoptedSilent, reason: err.Error()})
		w.pings.schedule()
	}
	w.journal.add(w.event("adopted", ""))
}

// vacate ends the remains of the recorded instance and continues with the slot, in which no process lives. inst is
// the dead process if it remains.
func (w *worker) vacate(ctx, bounded context.Context, o orders, inst instance) {
	if o.note != "" {
		w.journal.add(w.event("gone", o.note))
	}
	switch o.remains {
	case remainsProcess:
		if w.takeOver(ctx, bounded, o, inst) {
			w.inst, w.adopted = inst, true
			w.step(ctx, event{kind: evFoundDead})
		}
		return
	case remainsFamily:
		if !w.clear(ctx, bounded, w.rec.Instance.Token) {
			return
		}
	case remainsNone:
		w.remnants().killOthers(bounded, "")
	}
	w.state = o.from
	if o.event.kind == evExited {
		exit := store.Exit{Source: store.ExitUnknown}
		if e, known := w.sup.recovery.kept(w.rec.Instance.Token); known {
			exit = exitRecord(e)
		}
		w.exited(ctx, exit, o.event)
		return
	}
	w.rec.Instance = nil
	w.step(ctx, o.event)
}

// clear kills the remaining processes of the recorded instance, and those of other instances except keep. If that
// fails, it holds the worker: never a second copy beside a first that may still act.
func (w *worker) clear(ctx, bounded context.Context, keep string) bool {
	r := w.remnants()
	if err := r.kill(bounded, *w.rec.Instance); err != nil {
		w.hold(ctx, err)
		return false
	}
	r.killOthers(bounded, keep)
	return true
}

// afterwards does the work that can wait until the master serves calls: querying the offered services and, for an
// adopted worker, reading the executable to see whether it was replaced, and writing the history, for which all
// workers share one commit.
func (w *worker) afterwards(ctx context.Context) {
	if w.adopted && w.inst != nil {
		w.rec.Outdated = outdated(w.unit, w.rec)
		w.record(ctx)
	}
	w.discover(ctx)
}

// hold leaves the slot as it is until it can be recovered.
func (w *worker) hold(ctx context.Context, err error) {
	if w.state.reason != heldPrefix+err.Error() {
		w.journal.add(w.event("held", err.Error()))
	}
	w.leftover = err
	w.step(ctx, event{kind: evUnverifiable, reason: err.Error()})
}

// remnants are processes of a worker that no instance controls.
type remnants struct {
	launcher launcher
	worker   string
	holders  []process.Holder // found by the scan
	log      *slog.Logger
}

func (w *worker) remnants() remnants {
	return remnants{launcher: w.sup.launcher, worker: w.id, holders: w.found.holders, log: w.log}
}

// kill kills the remaining descendants of a dead instance.
func (r remnants) kill(ctx context.Context, rec store.Instance) error {
	left, err := r.launcher.sweep(ctx, r.worker, rec)
	if err != nil {
		return fmt.Errorf("stop the descendants of process %d: %w", rec.PID, err)
	}
	if len(left) > 0 {
		return fmt.Errorf("%d descendants of process %d could not be killed, the first is %d",
			len(left), rec.PID, left[0].PID)
	}
	return nil
}

// killOthers kills the processes that belong to an instance other than keep.
func (r remnants) killOthers(ctx context.Context, keep string) {
	killed := map[string]bool{keep: true}
	for _, h := range r.holders {
		if killed[h.Token] {
			continue
		}
		killed[h.Token] = true
		r.log.Info("worker surplus", "reason", fmt.Sprintf("process %d is of another instance, stopping it", h.PID))
		if err := r.kill(ctx, store.Instance{Token: h.Token, PID: h.PID}); err != nil {
			r.log.Error("process of another instance not stopped", "error", err)
		}
	}
}

// reconnect dials an adopted worker and checks that it answers. If silent is not empty, it is the known reason why
// the worker cannot.
func (w *worker) reconnect(ctx, bounded context.Context, silent string) error {
	l, err := w.sup.dial(w.rec.Instance.Port)
	if err != nil {
		return err
	}
	w.connect(ctx, l)
	if silent != "" {
		return errors.New(silent)
	}
	wait, cancel := context.WithTimeout(bounded, w.unit.Health.Timeout)
	defer cancel()
	if err := w.link.Ping(wait); err != nil {
		return errors.New(silenceReason(w.link, err))
	}
	return nil
}

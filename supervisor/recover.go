package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

const (
	// settleTimeout bounds recovery of one worker; all are recovered in parallel.
	settleTimeout = 5 * time.Second
	// holdInterval is how often a worker that cannot be verified is asked again.
	holdInterval = time.Second
)

// recover builds the workers from what is wanted, recorded and alive, starts
// their goroutines and waits until each has settled.
func (s *Supervisor) recover(ctx, work context.Context) error {
	snap, err := s.registry(ctx)
	if err != nil {
		return fmt.Errorf("read the registry: %w", err)
	}
	for key, err := range snap.Bad {
		s.log.Error("record not readable, its worker is looked for among the processes", "record", key, "error", err)
	}
	s.scene = s.survey()
	holders, scanErr := s.scan(ctx)
	if scanErr != nil {
		s.log.Error("processes not scanned", "error", scanErr)
	}
	slots := s.scene.slots(snap.Workers, s.units, false)
	strays := s.scene.assign(slots, holders, scanErr)
	if s.scene.moved {
		if err := s.acceptMove(ctx, slots); err != nil {
			return err
		}
	}
	for _, stray := range decideStrays(strays) {
		// What it says it is may be anything: quoted, and cut.
		stray.decision.log(s.log.With("worker", fmt.Sprintf("%.64q", stray.decision.ID)))
		go s.sweepStray(stray.token)
	}
	workers := make([]*worker, 0, len(slots))
	for i, slot := range slots {
		w := newWorker(s, slot)
		w.number = i
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
		case <-w.settled:
		case <-ctx.Done():
			return nil // Serve stops what there is
		}
	}
	return nil
}

// registryRetry is how often a registry that cannot be read is tried again.
const registryRetry = 20 * time.Millisecond

// registry reads what is recorded. Where the state is just being written anew, after a
// write has failed, it waits: workers that live want a master, not one that gives up.
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

// survey says what this recovery is about.
func (s *Supervisor) survey() *scene {
	return &scene{
		looker: s.launcher,
		scan:   s.scan,
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

// acceptMove forgets the instances of another state directory's master before the
// first worker of this one is started: a crash in between must not make the next
// master take these for the other's.
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

func (s *Supervisor) sweepStray(token string) {
	ctx, cancel := context.WithTimeout(context.Background(), killWait)
	defer cancel()
	if left, err := s.launcher.sweep(ctx, "", store.Instance{Token: token}); err != nil || len(left) > 0 {
		s.log.Error("process without a slot not stopped", "left", len(left), "error", err)
	}
}

// settle finds out what became of the recorded instance, decides what to do and
// does it. It is tried again later where that cannot be told.
func (w *worker) settle(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	f, inst := w.inspect(bounded)
	if errors.Is(f.cause, process.ErrLeaseHeld) {
		// Whoever holds it may be too short-lived to be seen by just looking.
		if err := w.sweep(bounded, *w.rec.Instance); err == nil {
			f, inst = w.inspect(bounded)
		}
	}
	d := decide(f)
	switch {
	case ctx.Err() == nil:
		w.tell(d)
		w.carryOut(ctx, bounded, f, inst)
	case inst != nil:
		_ = inst.Close() // the master has ended meanwhile
	}
	w.settleOnce.Do(func() { close(w.settled) })
}

func (w *worker) inspect(ctx context.Context) (facts, instance) {
	s := slot{id: w.id, unit: w.unit, recorded: w.saved.ID != "", rec: w.rec, state: w.state, found: w.found}
	f, inst := w.sup.scene.inspect(ctx, &s)
	w.found = s.found
	return f, inst
}

// tell logs a decision, unless the last one was the same.
func (w *worker) tell(d Decision) {
	if w.decided.Action == d.Action && w.decided.Reason == d.Reason {
		return
	}
	w.decided = d
	d.log(w.log)
}

// carryOut does what was decided. Where it cannot, the worker is held.
func (w *worker) carryOut(ctx, bounded context.Context, f facts, inst instance) {
	w.held, w.leftover = false, nil
	if f.stray {
		if !f.evidence.Moved && !f.evidence.OtherBoot && w.rec.Instance != nil && !w.clear(ctx, bounded, f.instance.Token) {
			_ = inst.Close()
			return
		}
		w.rec.Incarnation++
		w.rec.Port = f.instance.Port
		w.state = f.adoptedState()
		w.pending = append(w.pending, w.event(store.EventFromProcesses, fmt.Sprintf("process %d is newer than what is recorded", f.instance.PID)))
	}
	if f.instance != nil {
		w.rec.Instance = f.instance
	}
	switch f.standing {
	case unknown:
		w.hold(ctx, f.cause)
	case lives:
		w.sweepOthers(bounded, w.rec.Instance.Token)
		w.adopt(ctx, bounded, inst, f.silent)
	case dead:
		w.sweepOthers(bounded, w.rec.Instance.Token)
		w.inst, w.adopted, w.away = inst, true, true
		w.state = f.exitedState()
		w.state.alive = true
		w.bury(ctx, false)
	case gone:
		if w.clear(ctx, bounded, w.rec.Instance.Token) {
			w.state = f.exitedState()
			w.exited(ctx, w.exitWhileAway(), f.fate, true)
		}
	case cutOff:
		if w.clear(ctx, bounded, w.rec.Instance.Token) {
			w.begin(ctx)
		}
	case bygone:
		w.pending = append(w.pending, w.event("gone", "the machine was booted since"))
		fallthrough
	case unrecorded, abroad:
		w.sweepOthers(bounded, "")
		w.begin(ctx)
	}
}

// clear stops what is left of the recorded instance, and others but the one that is
// kept. It holds the worker where that cannot be done: never a second copy beside a
// first that may still act.
func (w *worker) clear(ctx, bounded context.Context, keep string) bool {
	if err := w.sweep(bounded, *w.rec.Instance); err != nil {
		w.hold(ctx, err)
		return false
	}
	w.sweepOthers(bounded, keep)
	return true
}

// begin goes on with a slot that nothing lives in.
func (w *worker) begin(ctx context.Context) {
	w.rec.Instance = nil
	w.step(ctx, event{kind: evBegin})
}

func hasEnded(inst instance) bool {
	select {
	case <-inst.Done():
		return true
	default:
		return false
	}
}

// afterwards does what could wait until the master serves: asking for services, and
// for an adopted worker reading the executable to tell whether it was replaced, and writing history, for
// which all workers share one commit.
func (w *worker) afterwards(ctx context.Context) {
	if w.adopted && w.inst != nil {
		w.rec.Outdated = outdated(w.unit, w.rec)
		w.record(ctx)
	}
	w.discover(ctx)
}

// exitWhileAway is how an instance ended that nobody watched: known only where
// somebody has kept its handle.
func (w *worker) exitWhileAway() store.Exit {
	if exit, known := w.sup.scene.kept(w.rec.Instance.Token); known {
		return exitRecord(exit)
	}
	return store.Exit{Source: store.ExitUnknown}
}

// heldPrefix begins the reason of a worker that waits for something to be settled.
const heldPrefix = "held: "

func (w *worker) hold(ctx context.Context, err error) {
	reason := heldPrefix + err.Error()
	if w.state.reason != reason {
		w.state.reason = reason
		w.record(ctx, w.event("held", err.Error()))
	}
	w.held, w.leftover = true, err
	w.retry.Reset(holdInterval)
}

// sweep stops what is left of a dead instance's family.
func (w *worker) sweep(ctx context.Context, rec store.Instance) error {
	left, err := w.sup.launcher.sweep(ctx, w.id, rec)
	if err != nil {
		return fmt.Errorf("stop the descendants of process %d: %w", rec.PID, err)
	}
	if len(left) > 0 {
		return fmt.Errorf("%d descendants of process %d could not be killed, the first is %d", len(left), rec.PID, left[0].PID)
	}
	return nil
}

// sweepOthers stops processes of this slot that belong to another instance than
// the one that is kept.
func (w *worker) sweepOthers(ctx context.Context, keep string) {
	swept := map[string]bool{keep: true}
	for _, h := range w.found.holders {
		if swept[h.Token] {
			continue
		}
		swept[h.Token] = true
		w.event("surplus", fmt.Sprintf("process %d is of another instance, stopping it", h.PID))
		if err := w.sweep(ctx, store.Instance{Token: h.Token, PID: h.PID}); err != nil {
			w.log.Error("process of another instance not stopped", "error", err)
		}
	}
}

// adopt takes over a proven process. What was running is asked whether it still
// answers; what was starting is waited for like any other start.
// silent says why it cannot answer, where that is known without asking it.
func (w *worker) adopt(ctx, bounded context.Context, inst instance, silent string) {
	crashpoint.Pass(crashpoint.Adopt, func() { w.took(inst, true) })
	w.sup.ports.keep(w.id, w.rec.Instance.Port)
	// What is recorded is then of this instance, or of one like it: routes are there at once.
	w.confirmed = w.state.asked()
	if !w.state.asked() {
		w.step(ctx, event{kind: evAdoptedSilent})
		return
	}
	err := w.reconnect(ctx, bounded, silent)
	if err == nil {
		w.step(ctx, event{kind: evAdopted})
	} else {
		w.step(ctx, event{kind: evAdoptedSilent, reason: err.Error()})
		w.schedulePing()
	}
	w.pending = append(w.pending, w.event("adopted", ""))
}

// reconnect attaches to an adopted worker and sees that it answers.
func (w *worker) reconnect(ctx, bounded context.Context, silent string) error {
	l, err := w.sup.dial(w.rec.Instance.Port)
	if err != nil {
		return err
	}
	w.connected(ctx, l)
	if silent != "" {
		return errors.New(silent)
	}
	wait, cancel := context.WithTimeout(bounded, pingTimeout)
	defer cancel()
	if err := w.link.Ping(wait); err != nil {
		return fmt.Errorf("no answer to Ping: %w", err)
	}
	return nil
}

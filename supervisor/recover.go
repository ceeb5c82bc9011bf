package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

const (
	// settleTimeout bounds recovery of one worker; all are recovered in parallel.
	settleTimeout = 5 * time.Second
	// holdInterval is how often a worker that cannot be verified is asked again.
	holdInterval = time.Second
)

// found is what the scan of all processes says about one worker slot.
type found struct {
	holders []process.Holder
	err     error // the scan failed: nothing is known of what no PID names
}

// recover builds the workers from what is wanted, recorded and alive, starts
// their goroutines and waits until each has settled.
func (s *Supervisor) recover(ctx, work context.Context) error {
	snap, err := s.opts.Store.Snapshot()
	if err != nil {
		return fmt.Errorf("read the registry: %w", err)
	}
	for key, err := range snap.Bad {
		s.log.Error("record not readable, its worker is looked for among the processes", "record", key, "error", err)
	}
	holders, scanErr := s.scan(ctx)
	if scanErr != nil {
		s.log.Error("processes not scanned", "error", scanErr)
	}
	workers := s.build(snap.Workers)
	s.assign(workers, holders, scanErr)
	for i, w := range workers {
		w.number = i
		if w.rec.Port != 0 {
			s.ports.keep(w.id, w.rec.Port)
		}
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
	if s.opts.Store.Moved() {
		s.log.Warn("state directory was copied or moved: the workers of the original were left alone")
		if err := s.opts.Store.AcceptMove(ctx); err != nil {
			return fmt.Errorf("record the state directory's new place: %w", err)
		}
	}
	return nil
}

// build makes the wanted slots, and the recorded ones that nobody wants any more.
func (s *Supervisor) build(recs []store.Worker) []*worker {
	recorded := map[string]*store.Worker{}
	for i := range recs {
		recorded[recs[i].ID] = &recs[i]
	}
	var workers []*worker
	units := map[string]Unit{}
	for _, u := range s.units {
		units[u.Name] = u
		for i := range u.Replicas {
			id := u.workerID(i)
			workers = append(workers, newWorker(s, u, id, recorded[id]))
			delete(recorded, id)
		}
	}
	for _, rec := range recs {
		if recorded[rec.ID] == nil {
			continue
		}
		u, known := units[rec.Unit]
		if !known {
			u = Unit{Name: rec.Unit}.withDefaults()
		}
		w := newWorker(s, u, rec.ID, &rec)
		w.state.wanted, w.state.retired = false, true
		workers = append(workers, w)
	}
	return workers
}

// assign tells each worker which processes carry its name or its token, and has
// those stopped that are ours and that no slot is for.
func (s *Supervisor) assign(workers []*worker, holders []process.Holder, scanErr error) {
	masterID := s.opts.Store.MasterID()
	stateDir := process.FileID(s.opts.Store.StateDirID()).String()
	byToken, byID := map[string]*worker{}, map[string]*worker{}
	for _, w := range workers {
		w.found.err = scanErr
		byID[w.id] = w
		if w.rec.Instance != nil {
			byToken[w.rec.Instance.Token] = w
		}
	}
	homeless := map[string]string{} // token → worker id
	for _, h := range holders {
		w := byToken[h.Token]
		if w == nil {
			// No record names it: it is ours only if both agree.
			if h.MasterID != masterID || h.StateDir != stateDir {
				continue
			}
			if w = byID[h.WorkerID]; w == nil {
				homeless[h.Token] = h.WorkerID
				continue
			}
		}
		w.found.holders = append(w.found.holders, h)
	}
	for token, id := range homeless {
		s.log.Warn("process without a slot, stopping it", "was", fmt.Sprintf("%.64q", id))
		go s.sweepStray(token)
	}
}

func (s *Supervisor) sweepStray(token string) {
	ctx, cancel := context.WithTimeout(context.Background(), killWait)
	defer cancel()
	if left, err := s.launcher.sweep(ctx, "", store.Instance{Token: token}); err != nil || len(left) > 0 {
		s.log.Error("process without a slot not stopped", "left", len(left), "error", err)
	}
}

// hopeless tells why no worker can become ready, or nil while one may.
func (s *Supervisor) hopeless() error {
	switch s.Status() {
	case Recovering:
		return nil // what is recorded as stopped is about to be started
	case Stopping:
		return errStopping
	case Running:
	}
	workers := s.Workers()
	for _, w := range workers {
		if w.Status != store.StatusFailed && w.Status != store.StatusStopped {
			return nil
		}
	}
	if len(workers) == 0 {
		return nil
	}
	return fmt.Errorf("all %d workers have failed or are stopped, the first because: %s", len(workers), workers[0].Reason)
}

// settle finds out what became of the recorded instance and goes on from there.
// It is tried again later where that cannot be told.
func (w *worker) settle(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	inst, err := w.identify(bounded)
	w.held = err != nil
	switch {
	case ctx.Err() != nil:
	case err != nil:
		w.hold(ctx, err)
	case inst != nil && hasEnded(inst):
		// Nobody has reaped it yet, so that even how it ended can be known.
		w.inst, w.adopted, w.away = inst, true, true
		w.state.alive = true
		w.state.planned = w.state.status == store.StatusStopping
		w.bury(ctx, false)
	case inst != nil:
		w.adopt(ctx, bounded, inst)
	case w.died:
		w.state.planned = w.state.status == store.StatusStopping
		exit := w.exitWhileAway()
		w.exited(ctx, exit, w.fate, true)
	default:
		w.rec.Instance = nil
		w.step(ctx, event{kind: evBegin})
	}
	w.settleOnce.Do(func() { close(w.settled) })
}

func hasEnded(inst instance) bool {
	select {
	case <-inst.Done():
		return true
	default:
		return false
	}
}

// afterwards does for an adopted worker what could wait until the master serves:
// reading the executable to tell whether it was replaced, and writing history, for
// which all workers share one commit.
func (w *worker) afterwards(ctx context.Context) {
	if w.adopted && w.inst != nil {
		w.rec.Outdated = w.outdated()
		w.record(ctx)
	}
}

// exitWhileAway is how an instance ended that nobody watched: known only where
// somebody has kept its handle.
func (w *worker) exitWhileAway() store.Exit {
	if handle := w.sup.opts.Keeper.Kept(w.rec.Instance.Token); handle != nil {
		if exit, known := process.ExitOf(handle); known {
			w.fate += ", " + describeExit(exit)
			return exitRecord(exit)
		}
	}
	return store.Exit{Source: store.ExitUnknown}
}

func (w *worker) hold(ctx context.Context, err error) {
	reason := "held: " + err.Error()
	if w.state.reason != reason {
		w.state.reason = reason
		w.record(ctx, w.event("held", err.Error()))
	}
	w.leftover = err
	w.retry.Reset(holdInterval)
}

// identify returns the living instance of this slot, or nil where there is none
// (w.died then tells whether one has ended). An error means that it cannot be told.
func (w *worker) identify(ctx context.Context) (instance, error) {
	w.died, w.leftover = false, nil
	rec := w.rec.Instance
	switch {
	case rec == nil:
		return w.adoptStray(ctx, "")
	case w.sup.opts.Store.Moved():
		// A copied state directory must not command the original's workers.
		return nil, nil
	case rec.BootID != w.sup.bootID:
		w.pending = append(w.pending, w.event("gone", "the machine was booted since"))
		return nil, nil
	case rec.PID == 0:
		return w.findStarting(ctx, *rec)
	}
	inst, err := w.sup.launcher.attach(w.id, *rec)
	switch {
	case err == nil:
		w.sweepOthers(ctx, rec.Token)
		return inst, nil
	case !errors.Is(err, process.ErrGone):
		return nil, err
	}
	if err := w.sweep(ctx, *rec); err != nil {
		return nil, err
	}
	inst, err = w.adoptStray(ctx, rec.Token)
	if inst == nil && err == nil {
		w.died, w.fate = true, fmt.Sprintf("process %d ended while no master ran", rec.PID)
	}
	return inst, err
}

// findStarting looks for the process of a start that a crash cut off between
// the fork and the record of the PID.
func (w *worker) findStarting(ctx context.Context, rec store.Instance) (instance, error) {
	if w.found.err != nil {
		if err := w.rescan(ctx); err != nil {
			return nil, fmt.Errorf("look for the process of a start that was cut off: %w", err)
		}
	}
	leader := w.leader(rec.Token)
	if leader == nil {
		// Whatever is left of it (a lease holder that shows no token) goes first.
		return nil, w.sweep(ctx, rec)
	}
	inst, err := w.take(*leader, rec)
	if errors.Is(err, process.ErrGone) {
		return nil, w.sweep(ctx, rec)
	}
	return inst, err
}

// adoptStray takes the process that no record names, but that says of itself
// that it fills this slot. Any other such process is stopped.
func (w *worker) adoptStray(ctx context.Context, dead string) (instance, error) {
	for _, h := range w.found.holders {
		leader := w.leader(h.Token)
		if h.Token == dead || leader == nil {
			continue
		}
		rec := store.Instance{Token: h.Token, BootID: w.sup.bootID, Port: h.Port, Started: time.Now(), UID: h.UID}
		inst, err := w.take(*leader, rec)
		if errors.Is(err, process.ErrGone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		w.rec.Incarnation++
		w.rec.Port = h.Port
		if w.state.status != store.StatusStopping {
			w.state.status = store.StatusStarting
		}
		w.sweepOthers(ctx, h.Token)
		return inst, nil
	}
	w.sweepOthers(ctx, dead)
	return nil, nil
}

// leader returns the instance among the holders of the token: the oldest that
// leads its own session, as every worker is started, and runs as our user.
func (w *worker) leader(token string) *process.Holder {
	candidates := slices.DeleteFunc(slices.Clone(w.found.holders), func(h process.Holder) bool {
		return h.Token != token || h.PID != h.PGID || h.PID != h.SID || int(h.UID) != os.Geteuid()
	})
	if len(candidates) == 0 {
		return nil
	}
	oldest := slices.MinFunc(candidates, func(a, b process.Holder) int { return cmp.Compare(a.StartTicks, b.StartTicks) })
	return &oldest
}

// take opens the process, proves by its environment that it still is the one
// that the scan saw, and makes it this slot's instance.
func (w *worker) take(h process.Holder, rec store.Instance) (instance, error) {
	inst, identity, err := w.sup.launcher.take(w.id, h.PID, rec)
	if err != nil {
		return nil, err
	}
	rec = identified(rec, identity)
	w.rec.Instance = &rec
	return inst, nil
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

// rescan looks for this worker's processes again, after a scan that failed.
func (w *worker) rescan(ctx context.Context) error {
	holders, err := w.sup.scan(ctx)
	if err != nil {
		return err
	}
	token := w.rec.Instance.Token
	w.found = found{holders: slices.DeleteFunc(holders, func(h process.Holder) bool { return h.Token != token })}
	return nil
}

// adopt takes over a proven process. What was running is asked whether it still
// answers; what was starting is waited for like any other start.
func (w *worker) adopt(ctx, bounded context.Context, inst instance) {
	w.took(inst, true)
	w.sup.ports.keep(w.id, w.rec.Instance.Port)
	if w.state.status == store.StatusStarting || w.state.status == store.StatusStopping || !w.state.wanted {
		w.step(ctx, event{kind: evAdoptedSilent})
		return
	}
	err := w.reconnect(ctx, bounded)
	if err == nil {
		w.step(ctx, event{kind: evAdopted})
	} else {
		w.step(ctx, event{kind: evAdoptedSilent, reason: err.Error()})
		w.schedulePing()
	}
	w.pending = append(w.pending, w.event("adopted", ""))
}

// reconnect attaches to an adopted worker and sees that it answers.
func (w *worker) reconnect(ctx, bounded context.Context) error {
	port := w.rec.Instance.Port
	l, err := w.sup.dial(port)
	if err != nil {
		return err
	}
	w.connected(ctx, l)
	if err := ownPort(w.inst, port); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(bounded, pingTimeout)
	defer cancel()
	if err := w.link.Ping(wait); err != nil {
		return fmt.Errorf("no answer to Ping: %w", err)
	}
	return nil
}

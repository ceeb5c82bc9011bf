package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// recover creates the workers from the wanted, recorded and living ones, starts their goroutines and waits until
// each has recovered.
func (s *Supervisor) recover(ctx, work context.Context) error {
	configured := s.changes.configured
	s.helpers.Go(func() { readPrograms(configured) })
	snap, err := readState(ctx, s.opts.Store, s.log)
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	// First of all: until its socket exists, a worker's notifications are lost.
	var sockets worker.Sockets
	if !s.opts.Store.Moved() { // otherwise the paths may be those of the original's workers
		sockets = worker.RestoreSockets(&s.env, snap.Workers)
	}
	defer sockets.Close() // those that no worker has taken
	for key, err := range snap.Bad {
		s.log.Error("record not readable", "record", key, "error", err)
	}
	warnOfOtherKey(s.log, s.env.Secrets, snap.Workers)
	s.env.Recovery = s.newRecoveryContext()
	holders, scanErr := s.scan(ctx)
	if scanErr != nil {
		s.log.Error("process scan failed", "error", scanErr)
	}
	units := recovery.UnitRecords(s.env.Secrets, s.changes.configured, snap.Units, time.Now())
	s.changes.recorded = snap.Units
	s.set.want(recovery.Wanted(s.changes.configured, units))
	slots := s.env.Recovery.Slots(snap.Workers, s.set.specs(), false)
	blameRetired(slots, units, snap.Units)
	s.set.restoreReplacing(units, snap.Workers)
	strays := s.env.Recovery.Assign(slots, holders, scanErr)
	if s.env.Recovery.Moved {
		if err := s.acceptMove(ctx, slots); err != nil {
			return err
		}
	}
	workers, err := newWorkers(s, slots, func() error { return s.changes.recordStart(ctx, units) })
	if err != nil {
		return fmt.Errorf("record the units: %w", err)
	}
	s.sweepStrays(work, strays)
	for _, w := range workers {
		w.Hear(sockets)
	}
	s.set.put(workers)
	s.watched.Restore(snap.Workers)
	if err := s.watched.Remove(ctx, s.set.specs(), taken(s.set.specs())); err != nil {
		s.log.Error("record not removed", "error", err) // the next start tries again
	}
	s.watched.Put(s.set.specs(), until(s.set.retired))

	for _, w := range workers {
		go w.Serve(work)
	}
	awaitRecovered(ctx, workers)
	return nil
}

// newWorkers makes the workers of the slots, which do nothing until they serve, while the units are being recorded. It
// fails if that fails.
func newWorkers(s *Supervisor, slots []recovery.Slot, record func() error) ([]*worker.Worker, error) {
	recorded := make(chan error, 1)
	go func() { recorded <- record() }()
	workers := make([]*worker.Worker, 0, len(slots))
	for _, slot := range slots {
		w := worker.New(&s.env, slot)
		workers = append(workers, w)
		if slot.State.Retired {
			s.set.retired = append(s.set.retired, w)
		}
	}
	return workers, <-recorded
}

// readPrograms reads the executables of the units while the processes are scanned, since their hashes are recorded, and
// are kept for that.
func readPrograms(units []unit.Spec) {
	for _, u := range units {
		_, _ = u.WithDefaults().Hash() // UnitRecords gets the same error
	}
}

// awaitRecovered waits until each of the workers has recovered. If ctx ends, it returns: Serve stops the workers.
func awaitRecovered(ctx context.Context, workers []*worker.Worker) {
	for _, w := range workers {
		select {
		case <-w.Recovered():
		case <-ctx.Done():
			return
		}
	}
}

// warnOfOtherKey logs that workers were started with environments that cannot be compared, because the key of these is
// lost.
func warnOfOtherKey(log *slog.Logger, key records.SecretKey, recs []records.Worker) {
	n := 0
	for _, w := range recs {
		if w.EnvironmentMAC != "" && w.SecretKey != key.ID() {
			n++
		}
	}
	if n > 0 {
		log.Warn("secret key lost", "workers", n, "next", "restart the workers that are marked outdated, or bring the "+
			"former secret.key back and start the master again")
	}
}

// stateRetry is the interval of retries while the state cannot be read.
const stateRetry = 20 * time.Millisecond

// readState reads the records. While the store rewrites its files after a failed write, readState retries: living
// workers need a master, so it must not give up.
func readState(ctx context.Context, db *store.DB, log *slog.Logger) (records.Snapshot, error) {
	for told := false; ; {
		snap, err := db.Present()
		if !errors.Is(err, store.ErrUnavailable) {
			return snap, err
		}
		if !told {
			told = true
			log.Error("state not readable, retrying", "error", err)
		}
		select {
		case <-time.After(stateRetry):
		case <-ctx.Done():
			return snap, err
		}
	}
}

// newRecoveryContext returns the context of a recovery that begins now.
func (s *Supervisor) newRecoveryContext() *recovery.Context {
	return &recovery.Context{
		Inspector: s.env.Launcher,
		Scan:      s.scan,
		Kept: func(token string) (identity.Exit, bool) {
			handle := s.env.Keeper.Kept(token)
			if handle == nil {
				return identity.Exit{}, false
			}
			return process.ExitOf(handle)
		},
		MasterID:     s.opts.Store.MasterID(),
		StateDir:     s.opts.Store.StateDirID().String(),
		BootID:       s.env.BootID,
		PIDNamespace: process.PIDNamespace(),
		UID:          os.Geteuid(),
		Moved:        s.opts.Store.Moved(),
		Now:          s.env.BootTime,
		Secrets:      s.env.Secrets,
	}
}

// acceptMove deletes the records of another state directory's instances before the first worker of this one is
// started. Otherwise, after a crash in between, the next master would take this directory's workers for the
// other's.
func (s *Supervisor) acceptMove(ctx context.Context, slots []recovery.Slot) error {
	s.log.Warn("state directory copied or moved")
	var muts []records.Mutation
	for _, slot := range slots {
		if rec := slot.Rec; rec.Instance != nil && !slot.Found.Shows(rec.Instance.Token) {
			rec.Instance = nil
			muts = append(muts, records.PutWorker(rec))
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

// sweepStrays kills the processes that belong to no slot, without waiting for their end.
func (s *Supervisor) sweepStrays(ctx context.Context, holders []process.Holder) {
	for _, stray := range recovery.DecideStrays(holders) {
		// The ID comes from the process's environment and may be anything: quote and truncate it.
		stray.Decision.Log(s.log.With("worker", fmt.Sprintf("%.64q", stray.Decision.ID)))
		s.helpers.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, launcher.KillWait)
			defer cancel()
			left, err := s.env.Launcher.Sweep(bounded, "", records.Instance{Token: stray.Token})
			if ctx.Err() == nil && (err != nil || len(left) > 0) {
				s.log.Error("stray process not stopped", "left", len(left), "error", err)
			}
		})
	}
}

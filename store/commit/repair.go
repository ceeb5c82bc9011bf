package commit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/rebuild"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

// repairer rewrites the state after a write or sync has failed, or after the files have disappeared from their paths.
// Deleted files are written back, since only this master still has them. If the files were moved, the repair fails
// until they return. If other files are in their place, those are left alone.
//
// Invariant: between two attempts, source has the state of the last acknowledged transaction, unless damage is set. It
// is the previous database's file, since the name of that file may be gone.
type repairer struct {
	writer *writer

	// unopened is set while the result of the start is not yet recorded in the database.
	unopened bool

	home identity.FileID // the directory that contains the state
	mine fs.FileInfo     // of state.db as last opened

	source  *os.File    // the database that was open before; nil before the first attempt and after a success
	damage  error       // of source, if the state must be rescued
	attempt fs.FileInfo // of the file most recently written to replace source
}

// repair rewrites the state. The kernel's view of the file may differ from the disk, and a second sync would prove
// nothing: the kernel reports an error once and then marks the pages clean. So repair writes the state of the last
// acknowledged transaction to a new file and the count to another. Every page of that transaction was synced before it
// was acknowledged. This also undoes the failed write, even if bbolt already shows it.
func (r *repairer) repair() error {
	w := r.writer
	if w.database.file != nil {
		if source := w.database.file.TakeSource(); source != nil {
			r.source = source
		}
	}
	use := func(next *boltfile.File, count *counterfile.File) {
		if err := w.exchange(next, count); err != nil {
			w.dir.Log.Warn("state files not closed cleanly", "path", w.dir.Database, "error", err)
		}
	}
	if !r.unopened {
		use(nil, nil) // otherwise the open files hold nothing new and stay readable
	}
	rescued, err := r.writeAnew()
	if err != nil {
		return err
	}
	count, err := counterfile.Create(w.dir.Ops, w.dir.Counter, w.counter.tally(), w.self.Get().CountShortSince)
	if err != nil {
		return err
	}
	file, err := boltfile.Open(w.dir.Database, w.dir.LockWait)
	if err != nil {
		_ = count.Close()
		return fmt.Errorf("reopen %s: %w", w.dir.Database, err)
	}
	if rescued {
		if err := errors.Join(r.readRescued(file), w.results.Load(file, w.dir.Database)); err != nil {
			return errors.Join(err, count.Close(), file.Close())
		}
	}
	file.Reserve(file.HighWater())
	use(file, count)
	if err := r.source.Close(); err != nil {
		return err
	}
	r.source, r.damage, r.mine, r.attempt = nil, nil, file.Info(), nil
	if err := r.recordHome(); err != nil {
		return err
	}
	if r.unopened {
		if err := w.commitRecord(w.self.Get()); err != nil {
			return err
		}
		r.unopened = false
	}
	return nil
}

// writeAnew puts a new state.db into place. rescued reports whether it had to be made from a backup.
func (r *repairer) writeAnew() (rescued bool, err error) {
	path := r.writer.dir.Database
	if r.damage == nil {
		if err := r.preparePlace(); err != nil {
			return false, err
		}
		err := r.rewrite()
		if err == nil {
			return false, nil
		}
		// A database that is damaged and also deleted must be rescued with either policy: there is no file to leave
		// in place.
		damaged, ok := errors.AsType[*statefile.DamagedError](err)
		if !ok || !r.writer.dir.Recover && !isMissing(path) {
			return false, fmt.Errorf("write %s anew: %w", path, err)
		}
		r.damage = damaged
	}
	damage := r.damage
	if isMissing(path) {
		damage = nil // it was deleted, or an earlier attempt has kept it aside
	}
	if err := r.rescue(damage); err != nil {
		return false, fmt.Errorf("write %s anew: %w", path, err)
	}
	r.attempt, err = os.Stat(path)
	return true, err
}

func isMissing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// rewrite writes a new state.db with the last acknowledged transaction of source.
func (r *repairer) rewrite() error {
	path := r.writer.dir.Database
	return r.writer.dir.Ops.Replace(crashpoint.Rewrite, path, func(dst *os.File) error {
		info, err := r.source.Stat()
		if err != nil {
			return err
		}
		img, err := boltfile.OpenImage(r.source, info.Size())
		if err != nil {
			return &statefile.DamagedError{Path: path, Err: err}
		}
		acknowledged, err := img.At(r.writer.txid)
		if err != nil {
			return &statefile.DamagedError{Path: path, Err: err}
		}
		if r.attempt, err = dst.Stat(); err != nil {
			return err
		}
		return acknowledged.CopyTo(dst)
	})
}

// rescue recovers from damage of source, for example because it was truncated. As at a start, the newest good backup
// takes its place. damage is nil if the file is already gone or kept aside. Newer changes of the registry are lost
// until the next start finds them among the living processes. The count is not lost, since it is in memory.
func (r *repairer) rescue(damage error) error {
	record := r.writer.self.Get()
	found := &rebuild.DiskState{
		ID: record.MasterID,
		Count: counterfile.Reading{
			Newest: counterfile.Copy{Sequence: 1, Tally: r.writer.counter.tally()}, Short: record.CountShortSince,
		},
	}
	return rebuild.Rebuilder{Dir: r.writer.dir, DirID: r.writer.self.LastDir(), Found: found}.Rescue(damage)
}

// readRescued reads the own record of a database that was made while the master runs.
func (r *repairer) readRescued(file *boltfile.File) error {
	return file.View(func(tx *bolt.Tx) error {
		t := records.TablesOf(tx)
		record, err := t.Meta()
		if err != nil {
			return err
		}
		if r.writer.folded, err = t.Tally(); err != nil {
			return err
		}
		r.writer.txid = uint64(tx.ID())
		r.writer.self.Set(record)
		return nil
	})
}

// preparePlace makes sure that the file about to be written goes to the proper place of the state and does not
// overwrite another state.
func (r *repairer) preparePlace() error {
	w, path := r.writer, r.writer.dir.Database
	there, err := os.Stat(path)
	if err == nil && r.attempt != nil && os.SameFile(r.attempt, there) {
		// The previous attempt put this file there before it failed at a later step. From now on it counts as this
		// master's own file, even if this attempt fails too.
		r.mine = there
	}
	switch {
	case err == nil && os.SameFile(r.mine, there):
		return w.lock.Renew(w.dir.Ops, w.dir.Path)
	case err == nil:
		return fmt.Errorf("another state was put in its place under way: %s is left as it is: "+
			"stop this master before its state is replaced", path)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("look for %s: %w", path, err)
	}
	if deleted, err := statefile.IsDeleted(r.source); err != nil || !deleted {
		return errors.Join(fmt.Errorf("%s was moved or unmounted under way: bring it back", path), err)
	}
	w.dir.Log.Warn("state database deleted", "path", path)
	if err := errors.Join(statedir.Make(w.dir.Ops, w.dir.Path), statedir.SyncPath(w.dir.Ops, w.dir.Path)); err != nil {
		return err
	}
	if err := w.lock.Renew(w.dir.Ops, w.dir.Path); err != nil {
		return err
	}
	mine := w.self.Get().MasterID
	switch id, err := statedir.ReadMasterID(w.dir.Path); {
	case err != nil:
		return err
	case id == "":
		return statedir.WriteMasterID(w.dir.Ops, w.dir.Path, mine)
	case id != mine:
		return fmt.Errorf("the state of another master (%s) was put in its place under way: it is left as it is: "+
			"stop this master before its state is replaced", id)
	}
	return nil
}

// recordHome records the directory to which the state was written back, if it is not the directory that the database
// was made for.
func (r *repairer) recordHome() error {
	now := r.writer.self.CurrentDir()
	record := r.writer.self.Get()
	if record.StateDir != r.home || now == r.home {
		return nil // unchanged, or not known to belong to this master: see Moved
	}
	record.StateDir = now
	if err := r.writer.commitRecord(record); err != nil {
		return err
	}
	r.home = now
	r.writer.self.Set(record)
	return nil
}

// start prepares for repairs of the state that was just opened. unopened is as in the struct.
func (r *repairer) start(unopened bool) {
	r.mine, r.unopened = r.writer.database.file.Info(), unopened
}

// close closes the file that a repair would have read from.
func (r *repairer) close() error {
	if r.source == nil {
		return nil
	}
	return r.source.Close()
}

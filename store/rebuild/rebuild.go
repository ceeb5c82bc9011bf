// Package rebuild makes a state.db if there is none that can be used: from a backup or, without one, an empty one. It
// continues after a crash at any point, and neither the master's id nor the count is lost while one of the files has
// it.
package rebuild

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/backups"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

// Rebuilder makes a new state.db if there is none that can be used.
//
// Invariant: the master's id is durable before the database gets its name, and the database is complete by then; in
// particular it already records whether the count may be short. If a crash interrupts the rebuilder, the database is
// missing and the next start runs it again.
type Rebuilder struct {
	Dir   *statedir.Dir
	DirID identity.FileID
	Found *DiskState
}

// CreateFirst makes the first database of a directory, with the counter before it: if there is a database and no
// counter, the counter was lost.
func (b Rebuilder) CreateFirst() error {
	if err := b.EnsureID(records.Meta{}); err != nil {
		return err
	}
	if b.Found.Count.Newest.Sequence == 0 {
		counter, err := counterfile.Create(b.Dir.Ops, b.Dir.Counter, counterfile.Tally{}, time.Time{})
		if err != nil {
			return err
		}
		b.Found.Count.Newest = counterfile.Copy{Sequence: counter.Sequence()}
		if err := counter.Close(); err != nil {
			return err
		}
	}
	return b.createEmpty(emptyDB{})
}

// Rescue makes a new database in place of a lost one: from the newest good backup, or an empty one whose contents
// are then learned from the living workers. damage is the fault of the existing file, or nil if it is missing.
func (b Rebuilder) Rescue(damage error) error {
	log := b.Dir.Log
	b.Found.rescued = true
	candidates, highest, err := backups.Of(b.Dir).Candidates(b.Found.ID)
	if err != nil {
		return err
	}
	why := "state.db was missing"
	if damage == nil {
		log.Warn("state database missing", "path", b.Dir.Database, "master", b.Found.ID)
	} else {
		highest = max(highest, boltfile.LastTx(b.Dir.Database))
		aside, err := b.Dir.Ops.KeepAside(b.Dir.Database, damage, log)
		if err != nil {
			return err
		}
		why = fmt.Sprintf("state.db was damaged and is kept as %s", filepath.Base(aside))
	}
	for _, c := range candidates {
		err := b.restore(c, highest+1, why)
		if _, damaged := errors.AsType[*statefile.DamagedError](err); damaged {
			log.Warn("backup not used", "backup", c.Path, "error", err)
			continue
		}
		return err
	}
	return b.startEmpty(highest, why)
}

// startEmpty makes a database without workers. It takes the count from the counter.
func (b Rebuilder) startEmpty(sequence uint64, why string) error {
	if err := b.EnsureID(records.Meta{}); err != nil {
		return err
	}
	content := emptyDB{
		count: counterfile.StartedAnew(b.Found.Count.Newest.Processed), short: b.Found.Count.Short, sequence: sequence,
	}
	if !b.Found.Count.Good() {
		content.short = b.Dir.Oldest()
	}
	content.events = []records.Mutation{records.AppendEvent(records.Event{
		Time: time.Now(), Type: eventtype.FromProcesses,
		Detail: why + "; there is no good backup, so that workers are known by what lives",
	})}
	if err := b.createEmpty(content); err != nil {
		return err
	}
	b.Dir.Log.Warn("empty registry created", "path", b.Dir.Database, "master", b.Found.ID)
	return nil
}

// restore makes the database from a backup. Its sequence must be one that no other database has had.
func (b Rebuilder) restore(c backups.Candidate, sequence uint64, why string) error {
	src, img, err := boltfile.Load(c.Path)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	if err := b.EnsureID(c.Meta); err != nil {
		return err
	}
	record := c.Meta
	record.MasterID, record.CleanShutdown = b.Found.ID, false
	counted := b.Found.Count.Newest.Processed
	count := counterfile.StartedAnew(max(counted, c.Processed))
	record.CountShortSince = records.Earliest(record.CountShortSince, b.Found.Count.Short)
	if !b.Found.Count.Good() || counted < c.Processed {
		// The counter, which would have the exact count, is lost or is itself an old copy.
		record.CountShortSince = records.Earliest(record.CountShortSince, c.AsOf())
	}
	made := c.AsOf().Format(time.RFC3339)
	detail := fmt.Sprintf("%s; %s of %s", why, filepath.Base(c.Path), made)
	if err := ReplaceDatabase(b.Dir, img, sequence, count, record, detail); err != nil {
		return fmt.Errorf("restore %s: %w", c.Path, err)
	}
	b.Dir.Log.Warn("state restored from backup",
		"path", b.Dir.Database, "backup", c.Path, "backup_time", made, "workers", len(c.Workers),
		"processed", count.Processed)
	return nil
}

// EnsureID makes sure that the master has an id and that the id is durable before the database is made, and so
// before the first fork. The id matters most of all lost data: the living workers know their master by it.
func (b Rebuilder) EnsureID(backup records.Meta) error {
	if b.Found.ID != "" {
		return nil
	}
	id := backup.MasterID
	if lost := b.Dir.LostID; id == "" && b.Found.Used(b.Dir) && lost != nil {
		var err error
		if id, err = lost(); err != nil {
			b.Dir.Log.Warn("master id not read from workers", "error", err)
		}
		if !records.ValidUUID(id) {
			id = ""
		}
	}
	if id == "" {
		id = records.NewUUID()
	}
	b.Found.ID = id
	return statedir.WriteMasterID(b.Dir.Ops, b.Dir.Path, id)
}

// emptyDB is the initial content of a database without workers.
type emptyDB struct {
	count    counterfile.Tally
	short    time.Time // see Meta.CountShortSince
	events   []records.Mutation
	sequence uint64 // the number of the last transaction of an earlier database; the new one continues above it
}

// createEmpty makes a database without workers under a temporary name and renames it.
func (b Rebuilder) createEmpty(content emptyDB) error {
	record := records.PutMeta(records.Meta{
		MasterID: b.Found.ID, Created: time.Now(), StateDir: b.DirID, CountShortSince: content.short,
	})
	if err := record.Check(); err != nil {
		return err
	}
	temp := b.Dir.Database + statefile.TempSuffix
	if err := statefile.Remove(temp); err != nil {
		return err
	}
	err := b.Dir.Ops.Perform(crashpoint.Database.Write(), func() error { return b.fillEmpty(temp, record, content) })
	if err != nil {
		return errors.Join(err, statefile.Remove(temp))
	}
	return b.Dir.Ops.Publish(crashpoint.Database, temp, b.Dir.Database)
}

// fillEmpty makes a database without workers at path.
func (b Rebuilder) fillEmpty(path string, record records.Mutation, content emptyDB) error {
	err := boltfile.Create(path, b.Dir.LockWait, func(db *bolt.DB) error {
		return db.Update(func(tx *bolt.Tx) error {
			if err := b.Dir.Steps.Apply(tx, 0); err != nil {
				return err
			}
			if err := records.PutProcessed(tx, content.count); err != nil {
				return err
			}
			for _, m := range content.events {
				if err := m.Apply(tx, b.Dir.MaxEvents); err != nil {
					return err
				}
			}
			return record.Apply(tx, b.Dir.MaxEvents)
		})
	})
	if err != nil {
		return err
	}
	f, err := safefile.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if content.sequence > 0 {
		err = boltfile.Renumber(f, content.sequence+1)
	}
	if err == nil {
		err = b.Dir.Ops.Perform(crashpoint.Database.Sync(), f.Sync)
	}
	return errors.Join(err, f.Close())
}

// ReplaceDatabase replaces state.db by the database of img with another count and record, and with an event of the
// recovery that detail describes.
func ReplaceDatabase(
	d *statedir.Dir, img *boltfile.Image, sequence uint64, count counterfile.Tally, record records.Meta, detail string,
) error {
	event := records.AppendEvent(records.Event{Time: time.Now(), Type: eventtype.FromBackup, Detail: detail})
	return d.Ops.Place(crashpoint.Restore, d.Database+statefile.TempSuffix, func(dst *os.File) (string, error) {
		return d.Database, FillFrom(d, dst, img, sequence, count, records.PutMeta(record), event)
	}, func(f *os.File) error { return records.CheckCopy(f, d.Steps.Version()) })
}

// FillFrom writes the database of img to the empty file dst, migrates it to the schema of this release and applies
// muts.
func FillFrom(
	d *statedir.Dir, dst *os.File, img *boltfile.Image, sequence uint64, count counterfile.Tally,
	muts ...records.Mutation,
) error {
	for _, m := range muts {
		if err := m.Check(); err != nil {
			return err
		}
	}
	return boltfile.Edit(dst, img, sequence, d.LockWait, func(tx *bolt.Tx) error {
		version, err := migrations.Version(tx)
		if err != nil {
			return err
		}
		if version < d.Steps.Version() {
			if err := d.Steps.Apply(tx, version); err != nil {
				return err
			}
		}
		for _, m := range muts {
			if err := m.Apply(tx, d.MaxEvents); err != nil {
				return err
			}
		}
		return records.PutProcessed(tx, count)
	})
}

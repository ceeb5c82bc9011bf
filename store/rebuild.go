package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/statefile"
)

// rebuilder makes a new state.db if there is none that can be used.
//
// Invariant: the master's id is durable before the database gets its name, and the database is complete by then; in
// particular it already records whether the count may be short. If a crash interrupts the rebuilder, the database is
// missing and the next start runs it again.
type rebuilder struct {
	dir   *stateDir
	dirID identity.FileID
	found *diskState
}

// createFirst makes the first database of a directory, with the counter before it: if there is a database and no
// counter, the counter was lost.
func (b rebuilder) createFirst() error {
	if err := b.ensureID(Meta{}); err != nil {
		return err
	}
	if b.found.count.Slot.Sequence == 0 {
		counter, err := counterfile.Create(b.dir.ops, b.dir.counter, counterfile.Tally{}, time.Time{})
		if err != nil {
			return err
		}
		b.found.count.Slot = counterfile.Slot{Sequence: counter.Sequence()}
		if err := counter.Close(); err != nil {
			return err
		}
	}
	return b.createEmpty(emptyDB{})
}

// rescue makes a new database in place of a lost one: from the newest good backup, or an empty one whose contents
// are then learned from the living workers. damage is the fault of the existing file, or nil if it is missing.
func (b rebuilder) rescue(damage error) error {
	log := b.dir.log
	b.found.rescued = true
	candidates, highest, err := backupsOf(b.dir).candidates(b.found.id)
	if err != nil {
		return err
	}
	why := "state.db was missing"
	if damage == nil {
		log.Warn("state.db is missing", "path", b.dir.db)
	} else {
		highest = max(highest, boltfile.LastTx(b.dir.db))
		aside, err := b.dir.ops.KeepAside(b.dir.db, damage, log)
		if err != nil {
			return err
		}
		why = fmt.Sprintf("state.db was damaged and is kept as %s", filepath.Base(aside))
	}
	for _, c := range candidates {
		err := b.restore(c, highest+1, why)
		if _, damaged := errors.AsType[*statefile.DamagedError](err); damaged {
			log.Warn("backup not used", "backup", c.path, "error", err)
			continue
		}
		return err
	}
	return b.startEmpty(highest, why)
}

// startEmpty makes a database without workers. It takes the count from the counter.
func (b rebuilder) startEmpty(sequence uint64, why string) error {
	if err := b.ensureID(Meta{}); err != nil {
		return err
	}
	content := emptyDB{
		count: counterfile.StartedAnew(b.found.count.Slot.Processed), short: b.found.count.Short, sequence: sequence,
	}
	if !b.found.count.Good() {
		content.short = b.dir.oldest()
	}
	content.events = []Mutation{AppendEvent(Event{
		Time: time.Now(), Type: EventFromProcesses,
		Detail: why + "; there is no good backup, so that workers are known by what lives",
	})}
	if err := b.createEmpty(content); err != nil {
		return err
	}
	b.dir.log.Warn("no good backup, starting with an empty registry: workers are known by what lives",
		"path", b.dir.db, "master", b.found.id)
	return nil
}

// restore makes the database from a backup. Its sequence must be one that no other database has had.
func (b rebuilder) restore(c candidate, sequence uint64, why string) error {
	src, img, err := boltfile.Load(c.path)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	if err := b.ensureID(c.Meta); err != nil {
		return err
	}
	record := c.Meta
	record.MasterID, record.CleanShutdown = b.found.id, false
	counted := b.found.count.Slot.Processed
	count := counterfile.StartedAnew(max(counted, c.Processed))
	record.CountShortSince = earliest(record.CountShortSince, b.found.count.Short)
	if !b.found.count.Good() || counted < c.Processed {
		// The counter, which would have the exact count, is lost or is itself an old copy.
		record.CountShortSince = earliest(record.CountShortSince, c.asOf())
	}
	made := c.asOf().Format(time.RFC3339)
	detail := fmt.Sprintf("%s; %s of %s", why, filepath.Base(c.path), made)
	if err := replaceDB(b.dir, img, sequence, count, record, detail); err != nil {
		return fmt.Errorf("restore %s: %w", c.path, err)
	}
	b.dir.log.Warn("state restored from a backup",
		"path", b.dir.db, "backup", c.path, "made", made, "workers", len(c.Workers), "processed", count.Processed)
	return nil
}

// ensureID makes sure that the master has an id and that the id is durable before the database is made, and so
// before the first fork. The id matters most of all lost data: the living workers know their master by it.
func (b rebuilder) ensureID(backup Meta) error {
	if b.found.id != "" {
		return nil
	}
	id := backup.MasterID
	if lost := b.dir.lostID; id == "" && b.found.used(b.dir) && lost != nil {
		var err error
		if id, err = lost(); err != nil {
			b.dir.log.Warn("the living workers were not asked for their master's id", "error", err)
		}
		if !validUUID(id) {
			id = ""
		}
	}
	if id == "" {
		id = newUUID()
	}
	b.found.id = id
	return writeMasterID(b.dir.ops, b.dir.path, id)
}

// emptyDB is the initial content of a database without workers.
type emptyDB struct {
	count    counterfile.Tally
	short    time.Time // see Meta.CountShortSince
	events   []Mutation
	sequence uint64 // the number of the last transaction of an earlier database; the new one continues above it
}

// createEmpty makes a database without workers under a temporary name and renames it.
func (b rebuilder) createEmpty(content emptyDB) error {
	record, err := encodeMeta(Meta{
		MasterID: b.found.id, Created: time.Now(), StateDir: b.dirID, CountShortSince: content.short,
	})
	if err != nil {
		return err
	}
	temp := b.dir.db + statefile.TempSuffix
	if err := statefile.Remove(temp); err != nil {
		return err
	}
	err = b.dir.ops.Perform(crashpoint.Database.Write(), func() error { return b.fillEmpty(temp, record, content) })
	if err != nil {
		return errors.Join(err, statefile.Remove(temp))
	}
	return b.dir.ops.Publish(crashpoint.Database, temp, b.dir.db)
}

// fillEmpty makes a database without workers at path.
func (b rebuilder) fillEmpty(path string, record []byte, content emptyDB) error {
	err := boltfile.Create(path, b.dir.lockWait, func(db *bolt.DB) error {
		return db.Update(func(tx *bolt.Tx) error {
			if err := b.dir.steps.Apply(tx, 0); err != nil {
				return err
			}
			if err := putProcessed(tx, content.count); err != nil {
				return err
			}
			for _, m := range content.events {
				if err := m.apply(tx, b.dir.maxEvents); err != nil {
					return err
				}
			}
			return bucket(tx, migrations.BucketMeta).put(keyMeta, record)
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
		err = b.dir.ops.Perform(crashpoint.Database.Sync(), f.Sync)
	}
	return errors.Join(err, f.Close())
}

// replaceDB replaces state.db by the database of img with another count and record, and with an event of the recovery
// that detail describes.
func replaceDB(
	d *stateDir, img *boltfile.Image, sequence uint64, count counterfile.Tally, record Meta, detail string,
) error {
	event := AppendEvent(Event{Time: time.Now(), Type: EventFromBackup, Detail: detail})
	return d.ops.Place(crashpoint.Restore, d.db+statefile.TempSuffix, func(dst *os.File) (string, error) {
		return d.db, fillFrom(d, dst, img, sequence, count, putMeta(record), event)
	}, func(f *os.File) error { return checkCopy(f, d.steps.Version()) })
}

// fillFrom writes the database of img to the empty file dst, migrates it to the schema of this release and applies
// muts.
func fillFrom(
	d *stateDir, dst *os.File, img *boltfile.Image, sequence uint64, count counterfile.Tally, muts ...Mutation,
) error {
	for _, m := range muts {
		if m.err != nil {
			return m.err
		}
	}
	return boltfile.Edit(dst, img, sequence, d.lockWait, func(tx *bolt.Tx) error {
		version, err := migrations.Version(tx)
		if err != nil {
			return err
		}
		if version < d.steps.Version() {
			if err := d.steps.Apply(tx, version); err != nil {
				return err
			}
		}
		for _, m := range muts {
			if err := m.apply(tx, d.maxEvents); err != nil {
				return err
			}
		}
		return putProcessed(tx, count)
	})
}

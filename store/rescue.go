package store

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/migrations"
)

// The types of the events that tell how a database came to be that was lost.
const (
	EventFromBackup    = "recovered-from-backup"
	EventFromProcesses = "recovered-from-processes"
)

// candidate is a backup that could be gone on from.
type candidate struct {
	backupFile
	content
}

// rescue makes the database that was lost: from the newest good backup, else an
// empty one, which the living workers fill. damage is what is wrong with the one
// that there is, nil where it is missing.
//
// A crash on the way leaves the database missing, and the next start comes here
// again. What the new one has to say of itself, that the count may be short above
// all, is in it before it gets its name.
func (db *DB) rescue(f *finding, damage error) error {
	f.rescued = true
	candidates, highest, err := db.candidates(f.id)
	if err != nil {
		return err
	}
	why := "state.db was missing"
	if damage == nil {
		db.opts.Logger.Warn("state.db is missing", "path", db.path)
	} else {
		highest = max(highest, sequenceOf(db.path))
		aside, err := db.keepAside(db.path, damage)
		if err != nil {
			return err
		}
		why = fmt.Sprintf("state.db was damaged and is kept as %s", filepath.Base(aside))
	}
	for _, c := range candidates {
		err := db.restore(f, c, highest+1, why)
		if _, damaged := errors.AsType[*DamagedError](err); damaged {
			db.opts.Logger.Warn("backup not used", "backup", c.path, "error", err)
			continue
		}
		return err
	}
	return db.startEmpty(f, highest, why)
}

// startEmpty makes a database without workers. It knows what the counter knows.
func (db *DB) startEmpty(f *finding, sequence uint64, why string) error {
	if err := db.settleID(f, Meta{}); err != nil {
		return err
	}
	b := blank{id: f.id, count: startedAnew(f.count.slot.processed), short: f.count.short, sequence: sequence}
	if !f.count.good() {
		b.short = db.oldest()
	}
	b.events = []Mutation{AppendEvent(Event{
		Time: time.Now(), Type: EventFromProcesses, Detail: why + "; there is no good backup, so that workers are known by what lives",
	})}
	if err := db.createDatabase(b); err != nil {
		return err
	}
	db.opts.Logger.Warn("no good backup, starting with an empty registry: workers are known by what lives", "path", db.path, "master", f.id)
	return nil
}

// restore makes the database from a backup, under a sequence that no other has had.
func (db *DB) restore(f *finding, c candidate, sequence uint64, why string) error {
	src, img, err := loadImage(c.path)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	if err := db.settleID(f, c.Meta); err != nil {
		return err
	}
	record := c.Meta
	record.MasterID, record.CleanShutdown = f.id, false
	count := startedAnew(max(f.count.slot.processed, c.Processed))
	record.CountShortSince = earliest(record.CountShortSince, f.count.short)
	if !f.count.good() || f.count.slot.processed < c.Processed {
		// The counter, which would know better, is lost, or is an old one itself.
		record.CountShortSince = earliest(record.CountShortSince, c.asOf())
	}
	made := c.asOf().Format(time.RFC3339)
	event := AppendEvent(Event{
		Time: time.Now(), Type: EventFromBackup, Detail: fmt.Sprintf("%s; %s of %s", why, filepath.Base(c.path), made),
	})
	err = db.place(crashpoint.Restore, db.path+tempSuffix, func(dst *os.File) (string, error) {
		return db.path, db.fillFrom(dst, img, sequence, count, putMeta(record), event)
	}, func(f *os.File) error { return checkCopy(f, db.steps.Version()) })
	if err != nil {
		return fmt.Errorf("restore %s: %w", c.path, err)
	}
	db.opts.Logger.Warn("state restored from a backup", "path", db.path, "backup", c.path, "made", made, "workers", len(c.Workers), "processed", count.processed)
	return nil
}

// fillFrom writes to dst, an empty file, the database of img as this release keeps
// it, with changes made to it.
func (db *DB) fillFrom(dst *os.File, img *image, sequence uint64, count tally, muts ...Mutation) error {
	for _, m := range muts {
		if m.err != nil {
			return m.err
		}
	}
	return db.edit(dst, img, sequence, func(tx *bolt.Tx) error {
		version, err := migrations.Version(tx)
		if err != nil {
			return err
		}
		if version < db.steps.Version() {
			if err := db.steps.Apply(tx, version); err != nil {
				return err
			}
		}
		for _, m := range muts {
			if err := m.apply(tx, db.opts.MaxEvents); err != nil {
				return err
			}
		}
		return putProcessed(tx, count)
	})
}

// edit writes to dst, an empty file, the database of img, and changes it.
func (db *DB) edit(dst *os.File, img *image, sequence uint64, change func(*bolt.Tx) error) error {
	if err := img.writeAs(dst, sequence); err != nil {
		return err
	}
	h, err := openHandle(dst.Name(), true, db.opts.LockWait)
	if err != nil {
		return err
	}
	return errors.Join(h.update(change, (*bolt.Tx).Commit), h.close())
}

// candidates returns the backups that can be gone on from, the best first: those of
// which every record can be read before those of which some cannot, and the newest
// first, by the transaction in it: clocks step. highest is that of all there are,
// good or not.
func (db *DB) candidates(id string) (good []candidate, highest uint64, err error) {
	files, err := listBackups(db.dir)
	if passing(err) {
		return nil, 0, err
	}
	if err != nil {
		db.opts.Logger.Warn("backups not listed", "path", filepath.Join(db.dir, backupsName), "error", err)
		return nil, 0, nil
	}
	var newer *NewerSchemaError
	for _, file := range files {
		highest = max(highest, file.sequence)
		c, err := readBackup(file, db.steps.Version())
		switch n, isNewer := errors.AsType[*NewerSchemaError](err); {
		case isNewer:
			newer = n
		case err == nil && id != "" && c.Meta.MasterID != "" && c.Meta.MasterID != id:
			err = fmt.Errorf("it is of another master, %s", c.Meta.MasterID)
		}
		if passing(err) {
			return nil, 0, err
		}
		if err != nil {
			db.opts.Logger.Warn("backup not used", "backup", file.path, "error", err)
			continue
		}
		highest = max(highest, c.Sequence)
		good = append(good, c)
	}
	if len(good) == 0 && newer != nil {
		return nil, 0, newer // it is not lost, only to be read by its own release
	}
	slices.SortStableFunc(good, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(len(a.Bad), len(b.Bad)), cmp.Compare(b.Sequence, a.Sequence))
	})
	return good, highest, nil
}

// passing tells an error that is the machine's of the moment, and says nothing of a
// file: to go on without the file would give it up for nothing.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// readBackup reads all of a backup.
func readBackup(file backupFile, known uint64) (candidate, error) {
	f, size, err := openRegular(file.path)
	if err != nil {
		return candidate{}, err
	}
	defer func() { _ = f.Close() }()
	c, err := readContent(f, size, known)
	if n, ok := errors.AsType[*NewerSchemaError](err); ok {
		n.Path = file.path
		return candidate{}, n
	}
	if err != nil {
		return candidate{}, &DamagedError{Path: file.path, Err: err}
	}
	return candidate{file, c}, nil
}

// asOf is when the backup was what was: all that was acknowledged before is in it.
func (c candidate) asOf() time.Time {
	if !c.CountedAt.IsZero() {
		return c.CountedAt
	}
	return c.backupFile.made
}

// newestBackup is the newest good backup of the master with this id, or where it is
// empty, of any. Without one it is zero.
func (db *DB) newestBackup(id string) candidate {
	good, _, err := db.candidates(id)
	if err != nil || len(good) == 0 {
		return candidate{}
	}
	return good[0]
}

// sequenceOf is that of a database that is damaged, 0 where it cannot be told.
func sequenceOf(path string) uint64 {
	f, size, err := openRegular(path)
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	metas, err := readMetas(f, size)
	if err != nil || metas.newest() == nil {
		return 0
	}
	// What is beyond all reason is of another database.
	if txid := metas.newest().TxID; txid < maxSequence {
		return txid
	}
	return 0
}

// maxSequence is beyond what a thousand commits a second reach in 30,000 years.
const maxSequence = 1 << 50

// renumber gives the database in f another number of its last transaction, so that
// it is newer than what it stands in for.
func renumber(f *os.File, sequence uint64) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	img, err := openImage(f, fi.Size())
	if err != nil {
		return err
	}
	for i := range uint64(2) {
		id := sequence
		if i != sequence%2 {
			id--
		}
		if _, err := f.WriteAt(img.meta.page(i, id), int64(i*img.meta.PageSize)); err != nil {
			return err
		}
	}
	return nil
}

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store/backups"
	"github.com/core-tools/hsu-master/store/records"
)

// WriteBackup writes a copy of the registry, with the current count, to w. w should accept the data at once, as a
// buffer does: until the copy is complete, the database cannot reuse any page.
func (db *DB) WriteBackup(w io.Writer) error {
	err := db.flow.Flush()
	if err == nil {
		err = db.flow.View(func(tx *bolt.Tx) error {
			_, err := tx.WriteTo(w)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("back up the state: %w", err)
	}
	return nil
}

// Backup writes a backup, with the current count, into the backups folder and returns its path, or "" if nothing has
// changed since the last backup. It then removes the oldest backups: see Options.KeepBackups.
func (db *DB) Backup() (path string, err error) {
	if err = db.flow.Flush(); err == nil {
		path, err = backups.Of(db.dir).Add(db.flow.View)
	}
	if err != nil {
		return "", fmt.Errorf("back up the state: %w", err)
	}
	return path, nil
}

const (
	// youngBackup is the minimum age of the last backup before a start makes the next one: a master that crashes
	// repeatedly must not push out all older backups.
	youngBackup = time.Minute
	// backupRetry is the longest delay before a failed backup is tried again.
	backupRetry = time.Minute
)

// ServeBackups makes a backup at once, unless there is one that is younger than a minute, and then one in each
// interval in which something has changed, until ctx ends or the state is closed. If backups fail, the first failure is
// logged and the attempts continue. An interval of 0 disables backups.
func (db *DB) ServeBackups(ctx context.Context, interval time.Duration) {
	if interval <= 0 {
		return
	}
	log := db.dir.Log
	timer := time.NewTimer(backups.Of(db.dir).UntilOld(min(interval, youngBackup)))
	defer timer.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		path, err := db.Backup()
		switch {
		case errors.Is(err, ErrClosed):
			return
		case err != nil:
			if !failing {
				log.Warn("backup failed, retrying", "error", err)
				db.noteBackup(ctx, eventtype.BackupFailed, err.Error())
			}
			failing = true
			timer.Reset(min(interval, backupRetry))
			continue
		case failing:
			log.Info("backups resumed", "backup", path)
			db.noteBackup(ctx, eventtype.BackupResumed, path)
		case path != "":
			log.Info("state backed up", "backup", path)
		}
		failing = false
		timer.Reset(interval)
	}
}

// noteBackup adds to the history that backups fail, or do not any more. If it cannot, nothing else is missing. That a
// backup was made is no event: the event would be a change of the state, and so the next backup never be the last one.
func (db *DB) noteBackup(ctx context.Context, kind, detail string) {
	const longest = 1024
	e := records.Event{Time: time.Now(), Type: kind, Detail: detail[:min(len(detail), longest)]}
	_ = db.Apply(ctx, records.AppendEvent(e)) // the log has it too
}

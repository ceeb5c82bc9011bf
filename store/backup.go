package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Backup writes a copy of the registry, with the count as it is now, to path:
// under a temporary name, synced, checked and renamed. The master goes on
// meanwhile. A file that was at path is replaced.
func (db *DB) Backup(path string) error {
	if err := db.join(context.Background(), request{flush: true}); err != nil {
		return fmt.Errorf("back up the state: %w", err)
	}
	err := replaceFile(path, func(f *os.File) error {
		if err := db.view(func(tx *bolt.Tx) error { return writeTx(tx, f) }); err != nil {
			return err
		}
		return checkCopy(f)
	})
	if err != nil {
		return fmt.Errorf("back up the state to %s: %w", path, err)
	}
	return nil
}

func writeTx(tx *bolt.Tx, f *os.File) error {
	_, err := tx.WriteTo(f)
	return err
}

// checkCopy walks the pages of a database that was just written to f.
func checkCopy(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	img, err := openImage(f, fi.Size())
	if err == nil {
		err = errors.Join(img.damaged, img.check(true))
	}
	if err != nil {
		return fmt.Errorf("the copy is damaged: %w", err)
	}
	return nil
}

// copyBeforeMigration puts a copy into the backups folder and returns its path.
func (db *DB) copyBeforeMigration(schema uint64) (string, error) {
	dir := filepath.Join(db.dir, backupsName)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if err := syncDir(db.dir); err != nil {
		return "", err
	}
	path := filepath.Join(dir, fmt.Sprintf("state-schema%d-%s.db", schema, time.Now().UTC().Format("20060102T150405.000000000Z")))
	return path, replaceFile(path, func(f *os.File) error {
		err := db.handle.view(func(tx *bolt.Tx) error { return writeTx(tx, f) })
		return errors.Join(err, checkCopy(f))
	})
}

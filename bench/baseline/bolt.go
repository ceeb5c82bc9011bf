package baseline

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store"
)

// openState creates a state in dir, closes it and opens its database as package store does: the same file, the same
// options.
func openState(dir string) (*bolt.DB, error) {
	db, err := store.Open(dir, store.Options{})
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "state.db")
	if err := db.Close(); err != nil {
		return nil, err
	}
	const (
		mapSize   = 64 << 20
		allocSize = 256 << 10
	)
	file, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:         time.Second,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: mapSize,
		NoStatistics:    true,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	file.AllocSize = allocSize
	return file, nil
}

// Committer commits to a database like the product's, one transaction at a time.
type Committer struct {
	db    *bolt.DB
	count uint64
}

// NewCommitter opens a new database in dir.
func NewCommitter(dir string) (*Committer, error) {
	db, err := openState(dir)
	if err != nil {
		return nil, err
	}
	return &Committer{db: db}, nil
}

// Commit writes one counter of 8 bytes and returns the time until it was synced.
func (c *Committer) Commit() (time.Duration, error) {
	c.count++
	started := time.Now()
	err := c.db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(migrations.BucketCounters).Put([]byte("bench"), binary.BigEndian.AppendUint64(nil, c.count))
	})
	return time.Since(started), err
}

// Close closes the database.
func (c *Committer) Close() error { return c.db.Close() }

package baseline

import (
	"fmt"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

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

package store

import (
	"context"
	"log/slog"
	"time"
)

// SyncMode says what a returned AddProcessed has survived.
type SyncMode int

const (
	// SyncAlways survives a power cut.
	SyncAlways SyncMode = iota
	// SyncInterval survives the death of the process at once, and a power cut
	// after at most Options.Interval.
	SyncInterval
)

// Options of Open; the zero value works.
type Options struct {
	Sync      SyncMode
	Interval  time.Duration // of SyncInterval; 0 means 100ms
	LockWait  time.Duration // for another master to end; 0 means 2s
	MaxEvents int           // kept in the registry; 0 means 1000
	Logger    *slog.Logger  // nil discards
}

// DB is an open state directory. Its methods may be called concurrently.
type DB struct{}

// Mutation is one change for Apply.
type Mutation struct{}

func Open(dir string, opts Options) (*DB, error) { panic("todo") }
func (db *DB) Dir() string                       { panic("todo") }
func (db *DB) MasterID() string                  { panic("todo") }
func (db *DB) StateDirID() FileID                { panic("todo") }
func (db *DB) Meta() Meta                        { panic("todo") }
func (db *DB) Moved() bool                       { panic("todo") }
func (db *DB) AcceptMove(ctx context.Context) error {
	panic("todo")
}
func (db *DB) Snapshot() (Snapshot, error)                         { panic("todo") }
func (db *DB) Apply(ctx context.Context, muts ...Mutation) error   { panic("todo") }
func PutWorker(w Worker) Mutation                                  { panic("todo") }
func DeleteWorker(id string) Mutation                              { panic("todo") }
func AppendEvent(e Event) Mutation                                 { panic("todo") }
func (db *DB) AddProcessed(ctx context.Context, n int64) error     { panic("todo") }
func (db *DB) Processed() int64                                    { panic("todo") }
func (db *DB) Alive(ctx context.Context) error                     { panic("todo") }
func (db *DB) Backup(path string) error                            { panic("todo") }
func (db *DB) Close() error                                        { panic("todo") }
func ReadSnapshot(dir string) (Snapshot, error)                    { panic("todo") }

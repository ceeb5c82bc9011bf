// Package migrations holds the steps that bring a state database from one schema version to the next.
//
// Version N is the result of the first N steps on an empty database. A released step is never changed; a new
// schema is a new step at the end of [All], and a database of the previous release is added to testdata. The
// caller copies the file first: a step may delete the data that it has converted.
package migrations

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// Names of the buckets, and of the keys in bucket meta.
var (
	BucketMeta     = []byte("meta")
	BucketWorkers  = []byte("workers")
	BucketCounters = []byte("counters")
	BucketEvents   = []byte("events")
	BucketServices = []byte("services") // since schema version 2
	BucketRequests = []byte("requests") // since schema version 2
	BucketUnits    = []byte("units")    // since schema version 3

	// KeyVersion in BucketMeta holds the schema version: 8 bytes, big endian.
	KeyVersion = []byte("schema_version")
)

// ErrNoVersion is returned if a database has no readable schema version, so that it is not a database of this
// program.
var ErrNoVersion = errors.New("no schema version: not a state file of hsu-master")

// ErrNotAsSaid is returned if a database already contains something that a later step creates: it is not of its
// recorded schema version, so it is damaged.
var ErrNotAsSaid = errors.New("not of the schema version that it says")

// Step leads from one schema version to the next. It sees the changes of all earlier steps. If it fails, all of them
// are undone.
type Step struct {
	// Does describes the step, such as "make the bucket events".
	Does string
	// Buckets are the names of the buckets that the step creates. A database of this version or a later one that lacks
	// any of them is damaged.
	Buckets [][]byte
	// Change does the rest, with the buckets present. It may be nil.
	Change func(*bolt.Tx) error
}

// List is an ordered list of steps. Its length is the resulting schema version.
type List []Step

// All has the steps of this release.
var All = List{
	{
		Does:    "make the buckets meta, workers, counters and events",
		Buckets: [][]byte{BucketMeta, BucketWorkers, BucketCounters, BucketEvents},
	},
	// The gateway's state has buckets of its own, so that version 1's buckets do not change.
	{
		Does:    "make the buckets services and requests",
		Buckets: [][]byte{BucketServices, BucketRequests},
	},
	{
		Does:    "make the bucket units, and record the units of the known workers",
		Buckets: [][]byte{BucketUnits},
		Change:  recordUnits,
	},
}

// Buckets returns the names of the buckets of a database with the schema version, as far as this release knows
// them. A database that lacks any of them is damaged.
func Buckets(version uint64) [][]byte {
	var names [][]byte
	for _, step := range All[:min(version, All.Version())] {
		names = append(names, step.Buckets...)
	}
	return names
}

// Describe returns a description of the step that leads to a schema version.
func Describe(version uint64) string {
	if version < 1 || version > All.Version() {
		return "unknown to this release"
	}
	return cmp.Or(All[version-1].Does, "unknown to this release")
}

// Current returns the schema version of this release.
func Current() uint64 { return All.Version() }

// Version returns the schema version that the whole list leads to.
func (l List) Version() uint64 { return uint64(len(l)) }

// Version returns the schema version recorded in the database, or [ErrNoVersion].
func Version(tx *bolt.Tx) (uint64, error) {
	meta := tx.Bucket(BucketMeta)
	if meta == nil {
		return 0, ErrNoVersion
	}
	return ParseVersion(meta.Get(KeyVersion))
}

// ParseVersion parses the value of KeyVersion; nil means that the key is missing.
func ParseVersion(value []byte) (uint64, error) {
	if len(value) != 8 {
		return 0, ErrNoVersion
	}
	version := binary.BigEndian.Uint64(value)
	if version == 0 {
		return 0, ErrNoVersion
	}
	return version, nil
}

// Apply runs the steps after version from, within tx, and records the resulting version. The caller commits tx, or
// rolls it back on an error.
func (l List) Apply(tx *bolt.Tx, from uint64) error {
	if from > l.Version() {
		return fmt.Errorf("migrate from schema version %d: only %d are known", from, l.Version())
	}
	for i, step := range l[from:] {
		if err := crashpoint.Do(crashpoint.MigrationStep, func() error { return step.apply(tx) }); err != nil {
			return fmt.Errorf("migrate to schema version %d: %w", from+uint64(i)+1, err)
		}
	}
	meta, err := tx.CreateBucketIfNotExists(BucketMeta)
	if err != nil {
		return fmt.Errorf("record schema version %d: %w", l.Version(), err)
	}
	if err := meta.Put(KeyVersion, binary.BigEndian.AppendUint64(nil, l.Version())); err != nil {
		return fmt.Errorf("record schema version %d: %w", l.Version(), err)
	}
	return nil
}

func (s Step) apply(tx *bolt.Tx) error {
	if err := create(tx, s.Buckets); err != nil {
		return err
	}
	if s.Change == nil {
		return nil
	}
	return s.Change(tx)
}

func create(tx *bolt.Tx, names [][]byte) error {
	for _, name := range names {
		_, err := tx.CreateBucket(name)
		if errors.Is(err, bolterrors.ErrBucketExists) || errors.Is(err, bolterrors.ErrIncompatibleValue) {
			return fmt.Errorf("%w: there is a %s", ErrNotAsSaid, name)
		}
		if err != nil {
			return fmt.Errorf("create bucket %s: %w", name, err)
		}
	}
	return nil
}

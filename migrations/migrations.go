// Package migrations holds the steps that bring a state database from one
// schema version to the next.
//
// Version N is what the first N steps make of an empty database. A released
// step is never changed; a new schema is a new step at the end of [All], and a
// database of the release before it goes into testdata. The caller copies the
// file first: a step may delete what it has converted.
package migrations

import (
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// Names of the buckets, and of what stands in bucket meta.
var (
	BucketMeta     = []byte("meta")
	BucketWorkers  = []byte("workers")
	BucketCounters = []byte("counters")
	BucketEvents   = []byte("events")
	BucketServices = []byte("services") // since schema version 2
	BucketRequests = []byte("requests") // since schema version 2

	// KeyVersion in BucketMeta holds the schema version: 8 bytes, big endian.
	KeyVersion = []byte("schema_version")
)

// ErrNoVersion means that a database has no readable schema version, so it is
// none of ours.
var ErrNoVersion = errors.New("no schema version: not a state file of hsu-master")

// ErrNotAsSaid means that a database has already what a later schema version brings: it
// is none of the version that it says, so it is damaged.
var ErrNotAsSaid = errors.New("not of the schema version that it says")

// Step leads from one schema version to the next. It sees every change of the
// steps before it, and whatever it returns but nil undoes all of them.
type Step func(*bolt.Tx) error

// List is an ordered list of steps; its length is the schema version it leads to.
type List []Step

// All are the steps of this release.
var All = List{
	createBuckets,
	createGatewayBuckets,
}

// says is what the steps of All do, for people.
var says = []string{
	"make the buckets meta, workers, counters and events",
	"make the buckets services and requests",
}

// Buckets returns the names of the buckets that a database of a schema version has,
// as far as this release knows them. One that lacks any of them is damaged.
func Buckets(version uint64) [][]byte {
	names := [][]byte{BucketMeta, BucketWorkers, BucketCounters, BucketEvents}
	if version >= 2 {
		names = append(names, BucketServices, BucketRequests)
	}
	return names
}

// Describe says what the step does that leads to a schema version.
func Describe(version uint64) string {
	if version < 1 || version > uint64(len(says)) {
		return "unknown to this release"
	}
	return says[version-1]
}

// Current is the schema version of this release.
func Current() uint64 { return All.Version() }

// Version returns the schema version that the whole list leads to.
func (l List) Version() uint64 { return uint64(len(l)) }

// Version returns the schema version recorded in the database, or
// [ErrNoVersion].
func Version(tx *bolt.Tx) (uint64, error) {
	meta := tx.Bucket(BucketMeta)
	if meta == nil {
		return 0, ErrNoVersion
	}
	return ParseVersion(meta.Get(KeyVersion))
}

// ParseVersion reads the value of KeyVersion; nil is that of a missing one.
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

// Apply runs the steps after version from, within tx, and records the version
// they lead to. The caller commits tx, or rolls it back on an error.
func (l List) Apply(tx *bolt.Tx, from uint64) error {
	if from > l.Version() {
		return fmt.Errorf("migrate from schema version %d: only %d are known", from, l.Version())
	}
	for i, step := range l[from:] {
		if err := crashpoint.Do(crashpoint.MigrationStep, func() error { return step(tx) }); err != nil {
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

// createBuckets makes an empty database one of schema version 1.
func createBuckets(tx *bolt.Tx) error {
	return create(tx, BucketMeta, BucketWorkers, BucketCounters, BucketEvents)
}

// createGatewayBuckets leads to schema version 2: what the gateway keeps has buckets of
// its own, so that nothing of version 1 is touched.
func createGatewayBuckets(tx *bolt.Tx) error { return create(tx, BucketServices, BucketRequests) }

func create(tx *bolt.Tx, names ...[]byte) error {
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

package migrations

import (
	"strings"
	"unicode/utf8"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/encoding/protowire"
)

// UnitOf returns the name of the unit of a worker, whose id is "<unit>-<number>", or "" if the id has another form.
func UnitOf(worker string) string {
	name := strings.TrimRight(worker, "0123456789")
	if len(name) == len(worker) || !strings.HasSuffix(name, "-") {
		return ""
	}
	return name[:len(name)-1]
}

// Numbers of the fields of storepb.Unit that recordUnits sets.
const (
	fieldName     protowire.Number = 1
	fieldReplicas protowire.Number = 3
)

// recordUnits records a unit for each name that the ids of the workers contain, with as many replicas as there are
// workers. The rest of a unit is not known before a master starts with it. The ids are sufficient: a worker's record
// that cannot be decoded does not prevent the migration.
func recordUnits(tx *bolt.Tx) error {
	replicas := map[string]uint64{}
	if err := tx.Bucket(BucketWorkers).ForEach(func(id, _ []byte) error {
		if name := UnitOf(string(id)); name != "" && utf8.ValidString(name) {
			replicas[name]++
		}
		return nil
	}); err != nil {
		return err
	}
	units := tx.Bucket(BucketUnits)
	for name, n := range replicas {
		record := protowire.AppendTag(nil, fieldName, protowire.BytesType)
		record = protowire.AppendString(record, name)
		record = protowire.AppendTag(record, fieldReplicas, protowire.VarintType)
		record = protowire.AppendVarint(record, n)
		if err := units.Put([]byte(name), record); err != nil {
			return err
		}
	}
	return nil
}

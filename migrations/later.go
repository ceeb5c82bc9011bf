//go:build crashpoints

package migrations

import (
	"fmt"
	"os"
	"strconv"

	bolt "go.etcd.io/bbolt"
)

// While there is one schema, no state is of an older one. So that migrating can be
// tried all the same, a program under test adds as many steps as HSU_LATER_STEPS says.
func init() {
	steps, _ := strconv.Atoi(os.Getenv("HSU_LATER_STEPS"))
	for range steps {
		All = append(All, later(len(All)))
	}
}

// later writes every worker's record anew, and adds a bucket for nothing.
func later(number int) Step {
	return func(tx *bolt.Tx) error {
		workers := tx.Bucket(BucketWorkers)
		written := map[string][]byte{}
		if err := workers.ForEach(func(k, v []byte) error {
			written[string(k)] = append([]byte(nil), v...)
			return nil
		}); err != nil {
			return err
		}
		for k, v := range written {
			if err := workers.Put([]byte(k), v); err != nil {
				return err
			}
		}
		_, err := tx.CreateBucket(fmt.Appendf(nil, "later-%d", number))
		return err
	}
}

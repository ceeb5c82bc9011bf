//go:build crashpoints

package migrations

import (
	"fmt"
	"os"
	"strconv"

	bolt "go.etcd.io/bbolt"
)

// So that migrations can be tested beyond the released steps, a program built with the tag "crashpoints" adds as
// many steps as HSU_LATER_STEPS specifies.
func init() {
	steps, _ := strconv.Atoi(os.Getenv("HSU_LATER_STEPS"))
	for range steps {
		All = append(All, Step{Change: later(len(All))})
	}
}

// later returns a change that rewrites every worker's record and adds an unused bucket.
func later(number int) func(*bolt.Tx) error {
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

package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
)

// A program holds a state, records a worker and counts requests. Both are on the disk when the calls return: another
// program can read them once this one has ended, even if it was killed.
func Example() {
	dir, err := os.MkdirTemp("", "state-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	db, err := store.Open(dir, store.Options{})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	echo := records.Worker{ID: "echo-0", Unit: "echo", Desired: records.DesiredRunning, Status: records.StatusStarting}
	if err := errors.Join(db.Apply(ctx, records.PutWorker(echo)), db.AddProcessed(ctx, 3)); err != nil {
		panic(err)
	}

	_, err = store.ReadSnapshot(dir)
	_, held := errors.AsType[*store.LockedError](err)
	fmt.Println("held:", held)
	if err := db.Close(); err != nil {
		panic(err)
	}

	snap, err := store.ReadSnapshot(dir)
	if err != nil {
		panic(err)
	}
	for _, w := range snap.Workers {
		fmt.Println(w.ID, "is to be", w.Desired, "and was", w.Status)
	}
	fmt.Println("processed:", snap.Processed)
	// Output:
	// held: true
	// echo-0 is to be running and was starting
	// processed: 3
}

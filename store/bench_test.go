//go:build unix

package store

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkAddProcessed counts from many goroutines at once. cpu-ns/op is what
// the whole process spent on a call, in user and system mode.
func BenchmarkAddProcessed(b *testing.B) {
	for name, mode := range map[string]SyncMode{"always": SyncAlways, "interval": SyncInterval} {
		for _, callers := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%s/%d", name, callers), func(b *testing.B) {
				benchmarkAdd(b, mode, callers)
			})
		}
	}
}

func benchmarkAdd(b *testing.B, mode SyncMode, callers int) {
	db, err := Open(b.TempDir(), Options{Sync: mode})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	}()
	ctx := b.Context() // it has a Done channel, as that of a request has
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ReportAllocs()
	start := cpuTime(b)
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := db.AddProcessed(ctx, 1); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N), "cpu-ns/op")
	if got := db.Processed(); got != int64(b.N) {
		b.Errorf("processed %d, want %d", got, b.N)
	}
}

// BenchmarkOpen opens and closes a state of 100 workers and 1000 events.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	db, err := Open(dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	var muts []Mutation
	for i := range 100 {
		muts = append(muts, PutWorker(fullWorker(fmt.Sprintf("worker-%d", i))))
	}
	for range 1000 {
		muts = append(muts, AppendEvent(Event{Time: testTime, Worker: "worker-0", Type: "started", Detail: "pid 4712"}))
	}
	put(b, db, muts...)
	mustClose(b, db)
	for b.Loop() {
		db, err := Open(dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		mustClose(b, db)
	}
}

func cpuTime(b *testing.B) int64 {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return ru.Utime.Nano() + ru.Stime.Nano()
}

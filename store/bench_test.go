//go:build unix

package store

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
)

// BenchmarkAddProcessed counts from many goroutines at once. cpu-ns/op is the CPU time of the whole process per
// call, in user and system mode.
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
	ctx := b.Context() // it has a Done channel, as the context of a request has
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

// BenchmarkCount is BenchmarkAddProcessed for callers that are notified.
func BenchmarkCount(b *testing.B) {
	for name, mode := range map[string]SyncMode{"always": SyncAlways, "interval": SyncInterval} {
		for _, callers := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%s/%d", name, callers), func(b *testing.B) {
				benchmarkCount(b, mode, callers)
			})
		}
	}
}

// client counts again as soon as it is notified.
type client struct {
	db   *DB
	left *atomic.Int64
	done *sync.WaitGroup
}

func (c *client) Counted(err error) {
	if err != nil || c.left.Add(-1) < 0 {
		c.done.Done()
		return
	}
	c.db.Count(c)
}

func benchmarkCount(b *testing.B, mode SyncMode, callers int) {
	db, err := Open(b.TempDir(), Options{Sync: mode})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	}()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	wg.Add(callers)
	b.ReportAllocs()
	start := cpuTime(b)
	b.ResetTimer()
	for range callers {
		(&client{db, &left, &wg}).Counted(nil)
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N), "cpu-ns/op")
	if got := db.Processed(); got != int64(b.N) {
		b.Errorf("processed %d, want %d", got, b.N)
	}
}

// BenchmarkCountOnce counts requests with an id, each id a new one.
func BenchmarkCountOnce(b *testing.B) {
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			db, err := Open(b.TempDir(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := db.Close(); err != nil {
					b.Error(err)
				}
			}()
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			start := cpuTime(b)
			b.ResetTimer()
			for range callers {
				wg.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						mustOnce(b, db,
							resultOf(fmt.Sprintf("request-%016x", n*0x1e3779b97f4a7c15), "Processed: hello"))
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkOpenResults opens and closes a state that has as many results as the default limit allows.
func BenchmarkOpenResults(b *testing.B) {
	dir := b.TempDir()
	db, err := Open(dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	c := make(told, 100_000)
	for n := range cap(c) {
		db.CountOnce(resultOf(fmt.Sprintf("request-%016x", n), "Processed: hello"), c)
	}
	for range cap(c) {
		if err := <-c; err != nil {
			b.Fatal(err)
		}
	}
	if got := db.results.Count(); got != cap(c) {
		b.Errorf("%d results are kept, want %d", got, cap(c))
	}
	mustClose(b, db)
	for b.Loop() {
		db, err := Open(dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		mustClose(b, db)
	}
	if fi, err := os.Stat(filepath.Join(dir, statedir.DatabaseName)); err == nil {
		b.ReportMetric(float64(fi.Size()), "file-bytes")
	}
}

// BenchmarkOpen opens and closes a state of 100 workers and 1000 events.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	db, err := Open(dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	var muts []records.Mutation
	for i := range 100 {
		muts = append(muts, records.PutWorker(fullWorker(fmt.Sprintf("worker-%d", i))))
	}
	for range 1000 {
		muts = append(muts, records.AppendEvent(
			records.Event{Time: testTime, Worker: "worker-0", Type: "started", Detail: "pid 4712"},
		))
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

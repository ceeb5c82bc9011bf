package daemon

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// How long a master counts as starting.
const (
	// startTime is three times what the start of a hundred workers needs.
	startTime = 1500 * time.Millisecond
	// settleTime is when even hundreds of workers have started, or have been found again, on a loaded machine.
	settleTime = 6 * time.Second
)

// Targets of garbage collections, as in GOGC: the heap grows by as many percent of what is in use, but at least to as
// many percent of 4 MiB.
const (
	// startGCPercent lets the heap grow to 32 MiB before the first collection, which is more than the start of a
	// hundred workers allocates with their connections.
	startGCPercent = 800
	// usualGCPercent is half of Go's default. Most memory of a master belongs to its workers and stays the same, and
	// the relay allocates little. So a collection is rare, and garbage is most of what can be saved.
	usualGCPercent = 50
	// busyGCPercent lets a small heap grow to 16 MiB.
	busyGCPercent = 400
)

// A master is busy when more than burst collections have come within burstTime, until none comes for calmTime. If one
// follows the other at once, only each second one may be counted.
const (
	burst     = 8
	burstTime = time.Second
	calmTime  = 10 * time.Second
	// busyRoom is the garbage between two collections of a busy master, if its heap is not small.
	busyRoom = 16 << 20
)

// collectSeldom makes garbage collections rare while the master starts and while it is busy, unless the user has set
// GOGC. Afterwards it returns the memory that this took to the system.
//
// A collection stops all goroutines, and waits for the fork under way each time: three of them during the start of a
// hundred workers took 6% of its processor time. A master that answers 15,000 requests a second itself would collect
// its few MiB 70 times a second, for a third of its processor time.
func collectSeldom() (stop func()) {
	if _, set := os.LookupEnv("GOGC"); set {
		return func() {}
	}
	debug.SetGCPercent(startGCPercent)
	p := &pacer{live: liveHeap}
	usual := time.AfterFunc(startTime, func() {
		debug.SetGCPercent(usualGCPercent)
		afterCollections(p.collected)
	})
	settled := time.AfterFunc(settleTime, returnMemory)
	return func() {
		usual.Stop()
		settled.Stop()
		p.stop()
		debug.SetGCPercent(usualGCPercent)
	}
}

// afterCollections calls f after each garbage collection, on a goroutine of the runtime, until f returns false.
func afterCollections(f func() bool) {
	// The next collection finds this object unused. It holds a pointer, because the runtime puts small objects without
	// one into a common block, which another may keep.
	runtime.AddCleanup(new(*byte), func(f func() bool) {
		if f() {
			afterCollections(f)
		}
	}, f)
}

// pacer sets the target of garbage collections by their frequency.
type pacer struct {
	live func() uint64 // the bytes in use after the last collection

	mu      sync.Mutex
	recent  [burst]time.Time // of the last collections: a ring
	next    int              // its oldest
	calm    *time.Timer      // ends the busy time; nil if the master is not busy
	percent int              // as set while it is busy
	stopped bool
}

// collected is called after each collection. It returns false if it needs no further call.
func (p *pacer) collected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return false
	}
	now := time.Now()
	oldest := p.recent[p.next]
	p.recent[p.next] = now
	p.next = (p.next + 1) % burst
	switch {
	case p.calm != nil:
		p.calm.Reset(calmTime)
	case !oldest.IsZero() && now.Sub(oldest) < burstTime:
		p.calm = time.AfterFunc(calmTime, p.rest)
	default:
		return true
	}
	if percent := busyTarget(p.live()); percent != p.percent {
		p.percent = percent
		debug.SetGCPercent(percent)
	}
	return true
}

// rest ends the busy time, and returns the memory that it took.
func (p *pacer) rest() {
	if p.endBusy() {
		returnMemory()
	}
}

func (p *pacer) endBusy() (ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || p.calm == nil {
		return false
	}
	p.calm, p.percent = nil, 0
	p.recent = [burst]time.Time{} // the collections of returnMemory are no burst
	debug.SetGCPercent(usualGCPercent)
	return true
}

func (p *pacer) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	if p.calm != nil {
		p.calm.Stop()
	}
}

// busyTarget returns the target of a busy master by the bytes that were in use after the last collection. It changes in
// steps, since setting it stops all goroutines.
func busyTarget(live uint64) int {
	const step = 50
	percent := busyRoom * 100 / max(live, 1) / step * step
	return int(min(max(percent, usualGCPercent), busyGCPercent))
}

// liveHeap returns the bytes of the heap that the last collection found in use.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}

// returnMemory returns memory that is not in use to the system. A collection halves the stacks of which less than a
// quarter is in use, and a worker's goroutine needs a small part of the stack that it started the worker with.
func returnMemory() {
	for range 2 {
		runtime.GC()
	}
	debug.FreeOSMemory() // collects too
	releaseProgram()
}

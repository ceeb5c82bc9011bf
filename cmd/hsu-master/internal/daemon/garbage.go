package daemon

import (
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

const (
	// startGCPercent is the garbage collection target of a master that starts. The heap grows to 32 MiB before the
	// first collection, which is more than the start of a hundred workers allocates with their connections.
	startGCPercent = 800
	// usualGCPercent is half of Go's default. Most memory of a master belongs to its workers and stays the same, and
	// the relay allocates little. So a collection is rare, and garbage is most of what can be saved.
	usualGCPercent = 50

	// startTime is how long a master counts as starting. A hundred workers need a third of it.
	startTime = 1500 * time.Millisecond
	// settleTime is when even hundreds of workers have started, or have been found again, on a loaded machine.
	settleTime = 6 * time.Second
)

// collectSeldom makes garbage collections rare while the master starts, unless the user has set GOGC. Then it returns
// the memory that the start has left to the system. A collection stops all goroutines, and waits for the fork under
// way each time: three of them during the start of a hundred workers took 6% of its processor time.
func collectSeldom() (stop func()) {
	if _, set := os.LookupEnv("GOGC"); set {
		return func() {}
	}
	debug.SetGCPercent(startGCPercent)
	usual := time.AfterFunc(startTime, func() { debug.SetGCPercent(usualGCPercent) })
	settled := time.AfterFunc(settleTime, returnMemory)
	return func() {
		usual.Stop()
		settled.Stop()
		debug.SetGCPercent(usualGCPercent)
	}
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

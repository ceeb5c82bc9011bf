package main

import (
	"os"
	"runtime/debug"
	"time"
)

const (
	// startGCPercent is the garbage collection target of a master that starts. The heap grows to 16 MiB before the
	// first collection, which is more than the start of a hundred workers allocates.
	startGCPercent = 400
	usualGCPercent = 100

	// startTime is how long a master counts as starting. A hundred workers need a third of it.
	startTime = 1500 * time.Millisecond
)

// collectSeldom makes garbage collections rare while the master starts, unless the user has set GOGC. Then it returns
// the memory that the start has left to the system. A collection stops all goroutines, and waits for the fork under
// way each time: three of them during the start of a hundred workers took 6% of its processor time.
func collectSeldom() (stop func()) {
	if _, set := os.LookupEnv("GOGC"); set {
		return func() {}
	}
	debug.SetGCPercent(startGCPercent)
	usual := time.AfterFunc(startTime, func() {
		debug.SetGCPercent(usualGCPercent)
		debug.FreeOSMemory()
	})
	return func() {
		usual.Stop()
		debug.SetGCPercent(usualGCPercent)
	}
}

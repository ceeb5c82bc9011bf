package main

import (
	"runtime"
	"sync"
)

// threadsInHand is how many threads a master has from its start on. A hundred
// workers that all restart under load have it use half as many (measured: 15).
const threadsInHand = 32

// haveThreads makes the runtime create n threads, which it keeps. Where a thread
// cannot be had in the moment that it is needed the runtime ends the program, and
// so would a limit on processes (RLIMIT_NPROC, TasksMax=, pid_max) that somebody
// reaches while the master runs.
func haveThreads(n int) {
	var all, done sync.WaitGroup
	all.Add(n)
	for range n {
		done.Go(func() {
			// One that is locked has a thread of its own until all have.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			all.Done()
			all.Wait()
		})
	}
	done.Wait()
}

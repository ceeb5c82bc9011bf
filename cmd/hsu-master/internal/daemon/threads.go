package daemon

import (
	"runtime"
	"sync"
)

// threadsInHand is the number of threads that a master creates at its start. It is twice the number that a
// hundred workers need when they all restart under load (measured: 15).
const threadsInHand = 32

// haveThreads makes the runtime create n threads, which it then keeps. The Go runtime aborts the program if it
// needs a new thread and cannot create one. That would happen if a limit on processes (RLIMIT_NPROC, TasksMax=,
// pid_max) were reached while the master runs.
func haveThreads(n int) {
	var all, done sync.WaitGroup
	all.Add(n)
	for range n {
		done.Go(func() {
			// A locked goroutine keeps its own thread until all goroutines have one.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			all.Done()
			all.Wait()
		})
	}
	done.Wait()
}

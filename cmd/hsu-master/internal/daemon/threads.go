package daemon

import (
	"os"
	"runtime"
	"sync"
	"time"
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

// startProcs is the value of GOMAXPROCS for each processor while a master starts.
const startProcs = 2

// forkMore raises GOMAXPROCS while the master starts, unless the user has set it. The runtime keeps a forking thread's
// place until the child executes its program, which takes most of the time of a start. With one place for each
// processor, two forks at a time leave none for the goroutines that prepare and record the other starts, although
// the processors are idle.
func forkMore() (stop func()) {
	if _, set := os.LookupEnv("GOMAXPROCS"); set {
		return func() {}
	}
	runtime.GOMAXPROCS(startProcs * runtime.GOMAXPROCS(0))
	// A function of its own: a goroutine that begins in package runtime belongs to the runtime, also for synctest.
	usual := time.AfterFunc(startTime, func() { runtime.SetDefaultGOMAXPROCS() })
	return func() {
		if usual.Stop() {
			runtime.SetDefaultGOMAXPROCS()
		}
	}
}

package process

import (
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/procfs"
)

// The kernel reads a process's environment under a lock on that process's memory. A thread that changes the memory
// layout takes this lock and keeps it while it waits for a disk or for processor time: for seconds on a loaded
// machine (observed), or forever on a file server that is gone. A pass over all processes must not wait for any
// single process; ps(1) is known to hang in this way.
const (
	stallPatience = 200 * time.Millisecond // for one process's environment
	// stallPatienceAfter is the patience for the other processes of a pass in which one has stalled.
	stallPatienceAfter = 20 * time.Millisecond
)

// stalled holds the processes whose environment a goroutine is still waiting for. Until that ends, they count as
// processes whose environment cannot be read; their leases are still evidence.
var stalled struct {
	sync.Mutex
	pids map[int]bool
}

func isStalled(pid int) bool {
	stalled.Lock()
	defer stalled.Unlock()
	return stalled.pids[pid]
}

func setStalled(pid int, is bool) {
	stalled.Lock()
	defer stalled.Unlock()
	if !is {
		delete(stalled.pids, pid)
		return
	}
	if stalled.pids == nil {
		stalled.pids = make(map[int]bool)
	}
	stalled.pids[pid] = true
}

// listing calls visit with processes in rising order, several at a time, until visit returns false.
type listing func(visit func(pids []int) bool) error

// look reads all processes in list and skips those that stall.
func (r *reader) look(list listing) error {
	patience := stallPatience
	for after := 0; ; patience = stallPatienceAfter {
		g := &glances{reader: r, after: after, done: make(chan struct{})}
		go g.run(list)
		if after = g.wait(patience); after == 0 {
			return g.err
		}
	}
}

// glances reads one process after the other, in a goroutine that can be abandoned.
type glances struct {
	mu     sync.Mutex
	reader *reader // guarded by mu until the goroutine is abandoned
	after  int     // processes up to this PID are already done
	at     int     // the PID being read; 0 means none
	reads  int
	thread int // the thread that reads
	left   bool
	err    error // of the list, once done is closed
	done   chan struct{}
}

func (g *glances) run(list listing) {
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	self := os.Getpid()
	runtime.LockOSThread() // so that the state of this thread is that of the read
	defer runtime.UnlockOSThread()
	g.mu.Lock()
	g.thread = unix.Gettid()
	g.mu.Unlock()
	err := list(func(pids []int) bool {
		for _, pid := range pids {
			if pid != self && pid > g.after && !g.glance(pid, buf) {
				return false
			}
		}
		return true
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.left {
		g.err = err
		close(g.done)
	}
}

// glance reads one process. It returns false if the goroutine was abandoned meanwhile.
func (g *glances) glance(pid int, buf *[]byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if isStalled(pid) {
		g.reader.add(pid, nil, procfs.EnvironDenied)
		return true
	}
	g.at = pid
	g.reads++
	read := g.reader.read
	g.mu.Unlock()
	environ, state := read(pid, buf)
	g.mu.Lock()
	if g.left {
		setStalled(pid, false)
		return false
	}
	g.at = 0
	g.reader.add(pid, environ, state)
	return true
}

// wait returns 0 if all processes were read, and otherwise the PID of the one that stalls.
func (g *glances) wait(patience time.Duration) (stalls int) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for reads := 0; ; {
		select {
		case <-g.done:
			return 0
		case <-timer.C:
		}
		g.mu.Lock()
		if g.at == 0 || g.reads != reads || runnable(g.thread) {
			reads = g.reads
			g.mu.Unlock()
			timer.Reset(patience)
			continue
		}
		g.left = true
		setStalled(g.at, true)
		g.reader.add(g.at, nil, procfs.EnvironDenied)
		stalls = g.at
		g.mu.Unlock()
		return stalls
	}
}

// runnable reports whether a thread of this process waits for nothing but processor time. If so, the process that
// it reads is not the cause of the delay.
func runnable(thread int) bool {
	stat, err := procfs.ReadStat(thread)
	return err == nil && stat.State == 'R'
}

// visit reads some processes, given in rising order.
func (r *reader) visit(pids []int) {
	_ = r.look(func(visit func([]int) bool) error { visit(pids); return nil }) // only the listing itself could fail
}

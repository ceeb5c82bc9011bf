package process

import (
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel reads a process's environment under a lock on that process's memory. Who
// changes the layout of the memory has the lock, and keeps it while he waits for a disk
// or for processor time: for seconds on a loaded machine (seen), for ever beside a file
// server that is gone. A pass over all processes must not wait for one of them, whoever's
// it is: ps(1) is known to hang so.
const (
	stallPatience = 200 * time.Millisecond // for one process's environment
	// stallPatienceAfter is that for others in the same pass, once one has stalled.
	stallPatienceAfter = 20 * time.Millisecond
)

// stalled are the processes whose environment a goroutine is still waiting for. As long
// as it does, they count as those that cannot be looked into: their leases still tell.
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

// listing calls visit with processes in rising order, some at a time, until it returns
// false.
type listing func(visit func(pids []int) bool) error

// look looks at all that are listed, and goes past those that stall.
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

// glances are those at one process after the other, by a goroutine that can be left
// behind.
type glances struct {
	mu     sync.Mutex
	reader *reader // with mu, as long as nobody has left
	after  int     // those up to this one were looked at before
	at     int     // that is being read, 0: none
	reads  int
	thread int // that reads
	left   bool
	err    error // of the list, once done is closed
	done   chan struct{}
}

func (g *glances) run(list listing) {
	buf := getBuffer()
	defer putBuffer(buf)
	self := os.Getpid()
	runtime.LockOSThread() // so that its state is that of the reading
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

// glance looks at one; false where it was left behind meanwhile.
func (g *glances) glance(pid int, buf *[]byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if isStalled(pid) {
		g.reader.take(pid, nil, environDenied)
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
	g.reader.take(pid, environ, state)
	return true
}

// wait returns 0 when all were looked at, and else the one that stalls.
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
		g.reader.take(g.at, nil, environDenied)
		stalls = g.at
		g.mu.Unlock()
		return stalls
	}
}

// runnable tells that a thread of ours does not wait for anything but processor time: what it reads is not to blame.
func runnable(thread int) bool {
	stat, err := readStat(thread)
	return err == nil && stat.State == 'R'
}

// visit looks at some processes, in rising order.
func (r *reader) visit(pids []int) {
	_ = r.look(func(visit func([]int) bool) error { visit(pids); return nil }) // no error but the list's own
}

package process

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/eintr"
)

// InheritsOrphans reports whether the kernel reparents orphaned descendants to this process: as process 1 of its
// PID namespace, or by PR_SET_CHILD_SUBREAPER.
func InheritsOrphans() bool {
	var subreaper int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&subreaper)), 0, 0, 0)
	return os.Getpid() == 1 || err == nil && subreaper != 0
}

// ownRetry is the delay before the reaper looks again if the first dead child is one that its own watch reaps,
// usually within microseconds.
const ownRetry = 5 * time.Millisecond

// ReapOrphans reaps the children of this process that it has not started, until ctx ends. It leaves a process
// started by Start, or opened by Open, to its own watch. A program that starts children by other means, such as
// os/exec, must not call ReapOrphans, which would take their exit status.
func ReapOrphans(ctx context.Context) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	defer signal.Stop(ended)
	for {
		var again <-chan time.Time
		if !reapOrphans() {
			again = time.After(ownRetry)
		}
		select {
		case <-ended:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// reapOrphans reports whether no dead child is left. The kernel reports one dead child at a time, so a child that
// is not an orphan hides the others until it is reaped.
func reapOrphans() bool {
	for {
		pid := deadChild()
		if pid == 0 {
			return true
		}
		if !watched.reap(pid) {
			return false
		}
	}
}

// deadChild returns the PID of a dead child that is not reaped yet, or 0 if there is none. The child stays a
// zombie.
func deadChild() int {
	var info unix.Siginfo
	_, err := eintr.Retry(func() (int, error) {
		return 0, unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	})
	if err != nil {
		return 0
	}
	return int((*childSiginfo)(unsafe.Pointer(&info)).pid)
}

// childSiginfo is the beginning of siginfo_t as waitid fills it: three integers are followed by a union that is
// aligned like a pointer.
type childSiginfo struct {
	_   [3]int32
	_   [0]uintptr
	pid int32
}

// watchedPIDs are the processes whose exits belong to a watch.
type watchedPIDs struct {
	// starting is locked for reading from a fork until the child is in pids: a child that ends at once must not be
	// taken for an orphan.
	starting sync.RWMutex

	mu   sync.Mutex
	pids map[int]int // PID → number of watches
}

var watched = watchedPIDs{pids: make(map[int]int)}

func (w *watchedPIDs) add(pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pids[pid]++
}

func (w *watchedPIDs) remove(pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pids[pid]--; w.pids[pid] == 0 {
		delete(w.pids, pid)
	}
}

// reap reaps a dead child unless it is watched. It reports whether the child was not watched.
func (w *watchedPIDs) reap(pid int) bool {
	w.starting.Lock()
	defer w.starting.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pids[pid] > 0 {
		return false
	}
	reaping.Lock()
	defer reaping.Unlock()
	// If its watch has reaped the child meanwhile, the PID is unused or that of another orphan.
	_, _ = eintr.Retry(func() (int, error) { return unix.Wait4(pid, nil, unix.WNOHANG, nil) })
	return true
}

package process

import (
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/procfs"
)

// A process whose memory is locked does not keep a pass from finding the others, and is found once it can be read
// again.
func TestPassGoesPastAProcessThatCannotBeRead(t *testing.T) {
	before, locked, after := startWorker(t, "sleep"), startWorker(t, "sleep"), startWorker(t, "sleep")
	for _, w := range []*worker{before, locked, after} {
		w.expect(t, "ready")
	}
	unlock := make(chan struct{})
	reads := make(chan int, 16)
	r := &reader{read: func(pid int, buf *[]byte) ([]byte, procfs.EnvironState) {
		if pid == locked.PID() {
			reads <- pid
			<-unlock
		}
		return procfs.ReadEnviron(pid, buf)
	}}
	pids := []int{before.PID(), locked.PID(), after.PID()}
	tokens := func() (found []string) {
		for _, h := range r.holders {
			found = append(found, h.Token)
		}
		return found
	}
	began := time.Now()
	r.visit(pids)
	if took := time.Since(began); took > patience/2 {
		t.Errorf("the pass took %v", took)
	}
	if want := []string{before.family.Token, after.family.Token}; !slices.Equal(tokens(), want) {
		t.Errorf("found %q, want the first and the last, %q", tokens(), want)
	}
	if !slices.Equal(r.users, pids) {
		t.Errorf("users %v, want %v: it is there, whatever it is", r.users, pids)
	}

	// While it is locked, no pass waits for it again.
	r.holders, r.users = nil, nil
	r.visit(pids)
	if len(reads) != 1 || len(r.holders) != 2 {
		t.Errorf("%d reads of the locked one, %d others found, want 1 and 2", len(reads), len(r.holders))
	}

	close(unlock)
	awaitTrue(t, "it is not taken for locked any more", func() bool { return !isStalled(locked.PID()) })
	r.holders, r.users = nil, nil
	r.visit(pids)
	if want := []string{before.family.Token, locked.family.Token, after.family.Token}; !slices.Equal(tokens(), want) {
		t.Errorf("found %q, want all, %q", tokens(), want)
	}
	for _, w := range []*worker{before, locked, after} {
		if err := w.Signal(unix.SIGKILL); err != nil {
			t.Error(err)
		}
	}
}

// A process that only takes or waits for processor time is waited for: next to busy processes every read is slow.
func TestPassWaitsForWhatIsOnlySlow(t *testing.T) {
	w := startWorker(t, "sleep")
	w.expect(t, "ready")
	// The time passes inside the kernel, as in a slow read. A loop in Go would be preempted every 10 ms, and its thread
	// would sleep until Go's scheduler continues it: on a busy machine, long enough to look like a stall. For the same
	// reason no thread that collects garbage or holds the last processor may delay the return from the kernel.
	random := make([]byte, 16<<20)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.GC()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	r := &reader{read: func(pid int, buf *[]byte) ([]byte, procfs.EnvironState) {
		for began := time.Now(); time.Since(began) < 3*stallPatience; {
			if _, err := unix.Getrandom(random, 0); err != nil {
				t.Error(err)
				break
			}
		}
		return procfs.ReadEnviron(pid, buf)
	}}
	r.visit([]int{w.PID()})
	if len(r.holders) != 1 || r.holders[0].Token != w.family.Token {
		t.Errorf("found %+v, want the worker", r.holders)
	}
	if err := w.Signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
}

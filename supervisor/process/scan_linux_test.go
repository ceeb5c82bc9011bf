package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// holdersOf returns the holders of a token, after a scan that could read all of the given processes. If a thread is
// stopped while it changes the memory layout of its process, as on a busy machine, a scan goes past that process.
func holdersOf(t testing.TB, token string, pids ...int) []Holder {
	t.Helper()
	ctx, cancel := testDeadline()
	defer cancel()
	all, err := Scan(ctx)
	for err == nil && slices.ContainsFunc(pids, isStalled) {
		all, err = Scan(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	var found []Holder
	for _, h := range all {
		if h.Token == token {
			found = append(found, h)
		}
	}
	return found
}

// passedOver reports whether a scan has waited for a process in vain: for one whose memory is locked, or for one that
// takes longer than execPatience for its execve. A machine that takes a processor away causes both.
func passedOver(pid int) bool {
	stuck.Lock()
	defer stuck.Unlock()
	_, waited := stuck.known[pid]
	return waited || isStalled(pid)
}

func TestScanTellsWhatTheEnvironmentSays(t *testing.T) {
	w := startWorker(t, "spawn", "sleep")
	first, second := w.expectPID(t, "ready"), w.expectPID(t, "ready")
	found := holdersOf(t, w.family.Token, first, second)
	if len(found) != 2 {
		t.Fatalf("found %+v, want the worker and its child", found)
	}
	want := Holder{
		PID: w.PID(), PPID: os.Getpid(), PGID: w.PID(), SID: w.PID(), UID: uint32(os.Geteuid()),
		State: found[0].State, StartTicks: w.Identity().StartTicks,
		MasterID: testMaster(), StateDir: "1:2", WorkerID: "worker-0", Token: w.family.Token, Port: 40001,
	}
	if found[0] != want {
		t.Errorf("the oldest is %+v, want %+v", found[0], want)
	}
	if got, want := found[1].PID, first+second-w.PID(); got != want || found[1].PPID != w.PID() {
		t.Errorf("the child is %+v, want pid %d of parent %d", found[1], want, w.PID())
	}
}

func TestScanSees(t *testing.T) {
	tests := []struct {
		behaviour string
		args      []string
		want      int
	}{
		{"sleep", nil, 1},
		{"re-exec", nil, 1},
		{"close-lease", nil, 1},
		{"dead-leader", nil, 1},
		{"drop-uid", nil, 1},
		{"overwrite", nil, 0},
		{"clear", []string{"sleep"}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.behaviour, func(t *testing.T) {
			if tt.behaviour == "drop-uid" {
				needRoot(t)
			}
			w := startWorker(t, tt.behaviour, tt.args...)
			w.expect(t, "ready")
			found := holdersOf(t, w.family.Token, w.PID())
			if len(found) != tt.want {
				t.Fatalf("found %+v, want %d", found, tt.want)
			}
			for _, h := range found {
				if h.PID != w.PID() || h.State == 'Z' {
					t.Errorf("found %+v, want the living process %d", h, w.PID())
				}
				if tt.behaviour == "drop-uid" && h.UID != nobody {
					t.Errorf("uid %d, want %d", h.UID, nobody)
				}
			}
		})
	}
}

// A process is still inside execve right after Start: execve closes the descriptors before the environment is in
// place.
func TestScanSeesProcessesInsideExec(t *testing.T) {
	const each = 25
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			w := prepareWorker(t)
			for range each {
				p, err := Start(Spec{
					Path: program, Args: childArgs("sleep"),
					Env: []string{EnvWorkerToken + "=" + w.family.Token},
				})
				if err != nil {
					t.Error(err)
					return
				}
				all, err := Scan(context.Background())
				seen := false
				for _, h := range all {
					seen = seen || h.PID == p.PID() && h.Token == w.family.Token
				}
				if err != nil || !seen && !passedOver(p.PID()) {
					t.Errorf("the scan after Start missed process %d (%v)", p.PID(), err)
				}
				if err := p.Signal(unix.SIGKILL); err != nil {
					t.Error(err)
				}
				<-p.Done()
				p.Close()
			}
		})
	}
	wg.Wait()
}

func TestScanEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := Scan(ctx); !errors.Is(err, why) {
		t.Errorf("Scan: %v, want %v", err, why)
	}
}

// A census that began before the call may miss a process that was started since.
func TestSharedCensusIsNeverTooOld(t *testing.T) {
	s := newSharedCensus()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				w := startWorkerQuietly(t)
				if w == nil {
					return
				}
				c, err := s.Answer(context.Background())
				if err != nil {
					t.Error(err)
					continue
				}
				seen := false
				for _, h := range c.holders {
					seen = seen || h.PID == w.PID()
				}
				if !seen && !passedOver(w.PID()) {
					t.Errorf("the census missed process %d", w.PID())
				}
				_ = w.Signal(unix.SIGKILL)
				<-w.Done()
				w.Close()
			}
		})
	}
	wg.Wait()
}

// startWorkerQuietly is for goroutines other than the test's.
func startWorkerQuietly(t *testing.T) *Process {
	p, err := Start(Spec{Path: program, Args: childArgs("sleep"), Env: []string{EnvWorkerToken + "=quiet"}})
	if err != nil {
		t.Error(err)
		return nil
	}
	return p
}

// A pass waits only once for a process that never has an environment.
func TestStuckProcessIsWaitedForOnce(t *testing.T) {
	w := startWorker(t, "sleep")
	w.expect(t, "ready")
	rememberStuck([]int{w.PID()})
	t.Cleanup(func() {
		stuck.Lock()
		defer stuck.Unlock()
		delete(stuck.known, w.PID())
	})
	r := &reader{pending: []int{w.PID(), os.Getppid()}}
	r.skipStuck()
	if want := []int{os.Getppid()}; !slices.Equal(r.pending, want) || !slices.Equal(r.users, []int{w.PID()}) {
		t.Errorf("pending %v, users %v, want %v and the stuck process", r.pending, r.users, want)
	}
	if err := w.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitDone(t, w.Process)
	w.Exit()
	r = &reader{pending: []int{w.PID()}}
	r.skipStuck() // its PID may now be another process's
	if len(r.pending) != 1 {
		t.Error("the dead process is still taken for stuck")
	}
}

func TestBootTimeGoesOn(t *testing.T) {
	first := BootTime()
	var uptime float64
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(text), &uptime); err != nil {
		t.Fatal(err)
	}
	if apart := time.Duration(uptime*float64(time.Second)) - first; apart < -time.Minute || apart > time.Minute {
		t.Errorf("BootTime() = %v, uptime is %v s", first, uptime)
	}
	if second := BootTime(); second < first {
		t.Errorf("BootTime went back from %v to %v", first, second)
	}
}

package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
)

// Kill must find a process on each known way out of the family.
func TestKillLeavesNobody(t *testing.T) {
	tests := []struct {
		name      string
		behaviour string
		args      []string
		living    int // number of processes that print "ready"
	}{
		{"plain", "sleep", nil, 1},
		{"ignores TERM", "ignore-term", nil, 1},
		{"child", "spawn", []string{"sleep"}, 2},
		{"session of its own", "double-fork", []string{"sleep"}, 2},
		{"left by its parent", "leave", []string{"sleep"}, 1},
		{"cleared environment", "clear", []string{"sleep"}, 1},
		{"cleared, session of its own", "double-fork", []string{"clear", "sleep"}, 2},
		{"cleared, left by its parent", "leave", []string{"clear", "sleep"}, 1},
		{"closed lease", "close-lease", nil, 1},
		{"closed lease, left by its parent", "leave", []string{"close-lease"}, 1},
		{"cleared and closed", "close-lease", []string{"clear", "sleep"}, 1},
		{"child cleared and closed", "spawn", []string{"close-lease", "clear", "sleep"}, 2},
		{"grandchild cleared and closed", "clear", []string{"close-lease", "spawn", "spawn", "sleep"}, 3},
		{"overwritten environment", "overwrite", nil, 1},
		{"overwritten, left by its parent", "leave", []string{"overwrite"}, 1},
		{"dead leader", "dead-leader", nil, 1},
		{"dead leader, left by its parent", "leave", []string{"dead-leader"}, 1},
		{"dead leader, cleared, left by its parent", "leave", []string{"clear", "dead-leader"}, 1},
		{"other user", "drop-uid", nil, 1},
		{"other user's child", "spawn-drop", []string{"clear", "sleep"}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.behaviour == "drop-uid" || tt.behaviour == "spawn-drop" {
				needRoot(t)
			}
			w := startWorker(t, tt.behaviour, tt.args...)
			var all []*Process
			for range tt.living {
				all = append(all, watchPID(t, w.expectPID(t, "ready")))
			}
			if tt.behaviour == "leave" {
				waitDone(t, w.Process)
				w.Exit() // its child no longer has a parent in the family
			}
			if err := all[0].Signal(unix.SIGSTOP); err != nil { // a stopped process must die as well
				t.Fatal(err)
			}
			ctx, cancel := testDeadline()
			defer cancel()
			members, err := w.family.Members(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range all {
				if !slices.ContainsFunc(members, func(h Holder) bool { return h.PID == p.PID() }) {
					t.Errorf("process %d is not among the members %+v", p.PID(), members)
				}
				if !w.family.Includes(p.PID()) {
					t.Errorf("process %d is not included", p.PID())
				}
			}
			if w.family.Includes(os.Getpid()) || w.family.Includes(os.Getppid()) || w.family.Includes(1<<22+1) {
				t.Error("a process that is no member is included")
			}
			if len(members) != len(all) {
				t.Errorf("%d members, want %d: %+v", len(members), len(all), members)
			}
			left, err := w.family.Kill(ctx)
			if err != nil || len(left) > 0 {
				t.Errorf("Kill: left %+v, %v", left, err)
			}
			for _, p := range all {
				waitDone(t, p)
			}
			if tt.behaviour != "leave" {
				waitDone(t, w.Process)
				want := identity.Exit{Signal: unix.SIGKILL, Source: identity.ExitWait}
				if got := w.Exit(); got != want {
					t.Errorf("Exit() = %+v, want %+v: the sweep must leave it to the handle", got, want)
				}
			}
			// No process has the output open any more, so none was overlooked.
			if err := w.pipe.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, w.output); err != nil {
				t.Errorf("somebody holds the output open: %v", err)
			}
		})
	}
}

// SignalGroup signals the leader's group, so Terminate must not signal it again.
func TestTerminateAsksThoseOutsideOfTheGroup(t *testing.T) {
	w := startWorker(t, "spawn", "double-fork", "count-term")
	ready := map[int]*Process{}
	for range 3 {
		pid := w.expectPID(t, "ready")
		ready[pid] = watchPID(t, pid)
	}
	if err := w.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitDone(t, w.Process)
	delete(ready, w.PID())
	ctx, cancel := testDeadline()
	defer cancel()
	if err := w.family.Terminate(ctx); err != nil {
		t.Fatal(err)
	}
	asked := w.expectPID(t, "term")
	if ready[asked] == nil {
		t.Errorf("process %d was asked, want one of %v", asked, ready)
	}
	for pid, p := range ready {
		if stat, err := procfs.ReadStat(pid); err != nil || !p.alive() || (stat.PGID == w.PID()) == (pid == asked) {
			t.Errorf("process %d of group %d is alive: %v (%v); asked was %d", pid, stat.PGID, p.alive(), err, asked)
		}
	}
}

// Processes that fork and exit at once outrun a kill at the end of a pass.
func TestKillCatchesForkChain(t *testing.T) {
	w := startWorker(t, "chain")
	w.expect(t, "ready")
	ctx, cancel := testDeadline()
	defer cancel()
	left, err := w.family.Kill(ctx)
	// If no pass finds a link of the chain, Kill gives up and its caller tries again. The end of the chain, which must
	// not come, bounds this.
	for errors.Is(err, ErrLeaseHeld) && ctx.Err() == nil {
		left, err = w.family.Kill(ctx)
	}
	if err != nil || len(left) > 0 {
		t.Errorf("Kill: left %+v, %v", left, err)
	}
	if err := w.pipe.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(w.output)
	if err != nil || len(rest) > 0 {
		t.Errorf("the chain went on: %q, %v", rest, err)
	}
}

// A busy machine makes few passes in a long time, and an idle one many in a short time: neither ends the search for a
// holder of the lease by itself.
func TestHolderOfTheLeaseIsLookedForInManyPassesAndForLong(t *testing.T) {
	for _, test := range []struct {
		name  string
		every time.Duration // between two passes
		want  int           // passes
	}{
		{"busy machine", hidingTime, hidingPasses},
		{"idle machine", hidingTime / 100, 101},
	} {
		t.Run(test.name, func(t *testing.T) {
			var q quietness
			passes := 1
			for now := time.Now(); ; passes++ {
				if _, enough := q.note(false, true, now); enough {
					break
				}
				now = now.Add(test.every)
			}
			if passes != test.want {
				t.Errorf("%d passes, want %d", passes, test.want)
			}
			if wait, enough := q.note(true, true, time.Now()); enough || wait > quietPeriod {
				t.Errorf("a member is seen: wait %v, enough %v, want another pass soon", wait, enough)
			}
		})
	}
}

// On a busy machine a killed process may take longer to die than one pass waits for it.
func TestProcessThatDiesAfterThePassThatKilledItIsLetGo(t *testing.T) {
	w := startWorker(t, "sleep")
	w.expect(t, "ready")
	s := &sweep{family: Family{Token: w.family.Token}, prey: make(map[int]*prey)}
	defer s.close()
	if !s.add(candidate{pid: w.PID(), why: byToken}, Holder{PID: w.PID()}) {
		t.Fatal("the worker was not opened")
	}
	if err := w.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitDone(t, w.Process)
	ctx, cancel := testDeadline()
	defer cancel()
	if found, err := s.pass(ctx, false); found != 0 || err != nil {
		t.Errorf("a pass that sees nobody found %d, %v", found, err)
	}
	if n := s.running(); n != 0 {
		t.Errorf("%d processes are taken for alive, want none", n)
	}
}

func TestKillOfNobodyIsAtOnce(t *testing.T) {
	w := startWorker(t, "exit", "0")
	waitDone(t, w.Process)
	w.Exit()
	ctx, cancel := testDeadline()
	defer cancel()
	// A busy machine may delay some calls, but a call that watches for latecomers is never fast.
	for atOnce := false; !atOnce; {
		start := time.Now()
		left, err := w.family.Kill(ctx)
		if err != nil || len(left) > 0 {
			t.Fatalf("Kill: left %+v, %v", left, err)
		}
		atOnce = time.Since(start) < quietPeriod
		if ctx.Err() != nil {
			t.Fatal("each call watched for latecomers")
		}
	}
}

func TestKillSparesItselfAndItsAncestors(t *testing.T) {
	w := startWorker(t, "kill-own", "child")
	killer := watchPID(t, w.expectPID(t, "killer"))
	child := watchPID(t, w.expectPID(t, "ready"))
	if err := killer.Signal(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	waitDone(t, child)
	if got, want := w.expect(t, "killed"), fmt.Sprintf("0 <nil> %d", w.PID()); got != want {
		t.Errorf("left, error and parent are %q, want %q", got, want)
	}
	if !killer.alive() || !w.alive() {
		t.Error("it killed itself or its parent")
	}
}

func TestKillReportsWhoCannotBeFound(t *testing.T) {
	w := startWorker(t, "exit", "0")
	waitDone(t, w.Process)
	lease, err := CreateLease(w.family.LeasePath)
	if err != nil {
		t.Fatal(err)
	}
	w.family.Lease = lease.ID() // held by this process, which is not a member
	ctx, cancel := testDeadline()
	defer cancel()
	left, err := w.family.Kill(ctx)
	if !errors.Is(err, ErrLeaseHeld) || len(left) > 0 {
		t.Errorf("Kill: left %+v, %v, want ErrLeaseHeld", left, err)
	}
	if err := lease.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestKillReportsWhoMayNotBeSignalled(t *testing.T) {
	needRoot(t)
	const token = "beyond my power"
	master := startWorker(t, "nobody-kill", token)
	started := master.expectPID(t, "started")
	first, second := master.expectPID(t, "ready"), master.expectPID(t, "ready")
	child := watchPID(t, first+second-started)
	if err := master.Signal(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	left := master.expectPID(t, "left")
	if left != child.PID() {
		t.Errorf("left is %d, want %d", left, child.PID())
	}
	if got := master.expect(t, "error"); got == "<nil>" {
		t.Error("no error")
	}
	if !child.alive() {
		t.Error("the process of another user is dead")
	}
	if err := child.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitDone(t, child)
}

func TestKillEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Family{Token: "none"}).Kill(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Kill: %v, want canceled", err)
	}
}

// A foreign process has the leader's PID, and another one has a member's PID as its parent.
func TestDescentIsProvenNotCounted(t *testing.T) {
	stats := map[int]procfs.Stat{
		10: {PID: 10, PPID: 1, StartTicks: 100},
		11: {PID: 11, PPID: 10, StartTicks: 100},
		12: {PID: 12, PPID: 11, StartTicks: 120},
		13: {PID: 13, PPID: 10, StartTicks: 90}, // older than its parent: the parent's PID was another process's
		20: {PID: 20, PPID: 10, StartTicks: 130},
		21: {PID: 21, PPID: 20, StartTicks: 140},
	}
	roots := []candidate{{pid: 10, why: byToken}, {pid: 12, why: byToken}}
	got := descend(roots, stats, childrenOf(stats), map[int]bool{20: true})
	want := []candidate{
		{pid: 10, why: byToken},
		{pid: 12, why: byToken},
		{pid: 11, why: byDescent, parent: 10},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestOurselvesHasAncestors(t *testing.T) {
	found := ourselves()
	for _, pid := range []int{1, os.Getpid(), os.Getppid()} {
		if !found[pid] {
			t.Errorf("%d is missing in %v", pid, found)
		}
	}
}

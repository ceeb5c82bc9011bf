package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
)

func leaseHeld(t *testing.T, path string, id identity.FileID) bool {
	t.Helper()
	held, err := LeaseHeld(path, id)
	if err != nil {
		t.Fatal(err)
	}
	return held
}

func TestLeaseIsHeldUntilTheLastHolderDies(t *testing.T) {
	w := startWorker(t, "spawn", "sleep")
	first, second := w.expectPID(t, "ready"), w.expectPID(t, "ready")
	child := watchPID(t, first+second-w.PID())
	path, id := w.family.LeasePath, w.family.Lease
	if !leaseHeld(t, path, id) {
		t.Error("not held by the worker")
	}
	if err := w.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitDone(t, w.Process)
	if !leaseHeld(t, path, id) {
		t.Error("not held by the child that lives on")
	}
	if err := child.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitDone(t, child)
	if leaseHeld(t, path, id) {
		t.Error("held by nobody")
	}
}

func TestLeaseIsOurOwnUntilClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lease")
	l, err := CreateLease(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // asking changes nothing
		if !leaseHeld(t, path, l.ID()) {
			t.Error("not held while open")
		}
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if leaseHeld(t, path, l.ID()) {
		t.Error("held after Close")
	}
}

// A process that has a lease's file open, or even another lock on it, does not hold the lease.
func TestLeaseIsNotHeldByOneWhoLocksItOtherwise(t *testing.T) {
	w := startWorker(t, "sleep")
	path, buf := w.family.LeasePath, procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	if !holdsLease(w.PID(), w.family.Lease, path, buf) {
		t.Fatal("the worker does not hold its lease")
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &all); err != nil {
		t.Fatal(err)
	}
	if holdsLease(os.Getpid(), w.family.Lease, path, buf) {
		t.Error("one who has a lock of another kind on it is taken for a holder")
	}
	// A process that checks while the lease is free holds a lock during the check.
	if err := w.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitDone(t, w.Process)
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	if holdsLease(os.Getpid(), w.family.Lease, path, buf) {
		t.Error("one who asks whether it is held is taken for a holder")
	}
}

func TestLeaseOfEachInstanceIsAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lease")
	// A crash between creating and renaming leaves this file.
	if err := os.WriteFile(path+".new", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := CreateLease(path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := CreateLease(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if first.ID() == second.ID() {
		t.Fatal("both leases have one inode")
	}
	if _, err := LeaseHeld(path, first.ID()); !errors.Is(err, ErrLeaseUnknown) {
		t.Errorf("LeaseHeld of the first: %v, want ErrLeaseUnknown", err)
	}
	if !leaseHeld(t, path, second.ID()) {
		t.Error("the second is not held")
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v (%v), want the lease only", entries, err)
	}
}

func TestLeaseUnknown(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("fifo", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"missing", "fifo", "link", "none/missing"} {
		_, err := LeaseHeld(filepath.Join(dir, name), identity.FileID{Device: 1, Inode: 2})
		if !errors.Is(err, ErrLeaseUnknown) || !strings.Contains(err.Error(), name) {
			t.Errorf("LeaseHeld of %s: %v, want ErrLeaseUnknown with its name", name, err)
		}
	}
	if _, err := CreateLease(filepath.Join(dir, "none", "lease")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("CreateLease in no folder: %v", err)
	}
}

// A process that only reads the file must not be taken for a member.
func TestLeaseReaderIsNoHolder(t *testing.T) {
	w := startWorker(t, "sleep")
	w.expect(t, "ready")
	file, err := os.Open(w.family.LeasePath)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	if !holdsLease(w.PID(), w.family.Lease, w.family.LeasePath, buf) {
		t.Error("the worker does not hold its lease")
	}
	if holdsLease(os.Getpid(), w.family.Lease, w.family.LeasePath, buf) {
		t.Error("the reader of the file holds the lease")
	}
}

// The master that locked the lease is dead, and no process has the PID of the lock's owner.
func TestLeaseOfDeadMaster(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lease")
	w := startWorker(t, "lease-master", path)
	pid := w.expectPID(t, "ready")
	waitDone(t, w.Process)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	id := identity.FileID{Device: uint64(st.Dev), Inode: st.Ino}
	if !leaseHeld(t, path, id) {
		t.Error("not held")
	}
	ctx, cancel := testDeadline()
	defer cancel()
	// This must also work if the file is gone.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	family := Family{Token: "none", LeasePath: path, Lease: id}
	members, err := family.Members(ctx)
	if err != nil || len(members) != 1 || members[0].PID != pid {
		t.Errorf("Members: %+v, %v, want process %d", members, err, pid)
	}
	if left, err := family.Kill(ctx); err != nil {
		t.Errorf("Kill: left %+v, %v", left, err)
	}
}

// forkBare makes a child that does nothing, like one that is about to execute a program.
//
//go:norace
func forkBare() int {
	pid, _, _ := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	for pid == 0 {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
	return int(pid)
}

// Workers are started concurrently: a child that has not reached its execve has the leases of other workers, and
// must not be killed for them.
func TestLeaseOfAnotherStartUnderWay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lease")
	l, err := CreateLease(path)
	if err != nil {
		t.Fatal(err)
	}
	pid := forkBare()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	child, err := OpenPID(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer child.Close()
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	if !holdsLease(pid, l.ID(), path, buf) {
		t.Error("the child has no copy of the lease")
	}
	ctx, cancel := testDeadline()
	defer cancel()
	family := Family{Token: "none", LeasePath: path, Lease: l.ID()}
	if members, err := family.Members(ctx); err != nil || len(members) > 0 {
		t.Errorf("Members: %+v, %v, want none", members, err)
	}
	if _, err := family.Kill(ctx); !errors.Is(err, ErrLeaseHeld) {
		t.Errorf("Kill: %v, want ErrLeaseHeld", err)
	}
	if !child.alive() {
		t.Error("the child was killed")
	}
	if child.Stopped() {
		t.Error("the child was stopped")
	}
	if err := child.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitDone(t, child)
	if got, want := child.Exit(), (identity.Exit{Signal: unix.SIGKILL, Source: identity.ExitWait}); got != want {
		t.Errorf("Exit() = %+v, want %+v", got, want)
	}
}

// The number of a lease's inode is free once its last holder is dead and the file is replaced, and another
// worker's lease may get it. The holder of that lease is a foreign process.
func TestLeaseWithTheInodeOfAnEarlierOne(t *testing.T) {
	w := startWorker(t, "sleep")
	w.expect(t, "ready")
	ctx, cancel := testDeadline()
	defer cancel()
	dead := Family{
		Token:     "of an instance that is dead",
		LeasePath: filepath.Join(filepath.Dir(w.family.LeasePath), "another.lease"),
		Lease:     w.family.Lease,
	}
	if members, err := dead.Members(ctx); err != nil || len(members) > 0 {
		t.Errorf("Members: %+v, %v, want none", members, err)
	}
	if left, err := dead.Kill(ctx); err != nil || len(left) > 0 {
		t.Errorf("Kill: %+v, %v", left, err)
	}
	if !w.alive() {
		t.Error("a stranger was killed")
	}
}

// A descriptor can be passed to any process: holding the lease alone does not make a member.
func TestHolderOfTheLeaseNeedsASecondSign(t *testing.T) {
	w := startWorker(t, "sleep")
	w.expect(t, "ready")
	user, started := uint32(os.Geteuid()), w.Identity().StartTicks
	for name, tt := range map[string]struct {
		session int
		uid     uint32
		since   uint64
		member  bool
	}{
		"of the user, started later":   {uid: user, since: started, member: true},
		"of the session":               {session: w.PID(), uid: user + 1, member: true},
		"of another user":              {session: w.PID() + 1, uid: user + 1},
		"of the user, started earlier": {uid: user, since: started + 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := Family{
				Token: "of another instance", LeasePath: w.family.LeasePath, Lease: w.family.Lease,
				Session: tt.session, UID: tt.uid, StartTicks: tt.since,
			}
			ctx, cancel := testDeadline()
			defer cancel()
			members, err := f.Members(ctx)
			if tt.member {
				if err != nil || len(members) != 1 || members[0].PID != w.PID() {
					t.Errorf("Members = %+v, %v, want process %d", members, err, w.PID())
				}
				return
			}
			_, killed := f.Kill(ctx)
			for _, err := range []error{err, killed} {
				if !errors.Is(err, ErrLeaseHeld) ||
					!strings.Contains(err.Error(), fmt.Sprintf("process %d of user %d", w.PID(), user)) {
					t.Errorf("%v, want ErrLeaseHeld with the stranger", err)
				}
			}
			if len(members) > 0 || !w.alive() || w.Stopped() {
				t.Errorf("members are %+v, and the stranger was touched", members)
			}
		})
	}
}

package process

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func leaseHeld(t *testing.T, path string, id FileID) bool {
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

// Who has a lease's file open, and even a lock on it, is no holder of the lease.
func TestLeaseIsNotHeldByOneWhoLocksItOtherwise(t *testing.T) {
	w := startWorker(t, "sleep")
	path, buf := w.family.LeasePath, getBuffer()
	defer putBuffer(buf)
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
	// One who asks while nobody holds it has a lock for as long as that takes.
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
	// What a crash between creating and renaming leaves.
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
		_, err := LeaseHeld(filepath.Join(dir, name), FileID{Device: 1, Inode: 2})
		if !errors.Is(err, ErrLeaseUnknown) || !strings.Contains(err.Error(), name) {
			t.Errorf("LeaseHeld of %s: %v, want ErrLeaseUnknown with its name", name, err)
		}
	}
	if _, err := CreateLease(filepath.Join(dir, "none", "lease")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("CreateLease in no folder: %v", err)
	}
}

// Who just reads the file is a stranger, and must not be taken for a member.
func TestLeaseReaderIsNoHolder(t *testing.T) {
	w := startWorker(t, "sleep")
	w.expect(t, "ready")
	file, err := os.Open(w.family.LeasePath)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	buf := getBuffer()
	defer putBuffer(buf)
	if !holdsLease(w.PID(), w.family.Lease, w.family.LeasePath, buf) {
		t.Error("the worker does not hold its lease")
	}
	if holdsLease(os.Getpid(), w.family.Lease, w.family.LeasePath, buf) {
		t.Error("the reader of the file holds the lease")
	}
}

// The master that locked the lease is dead; the lock's owner is then nobody's PID.
func TestLeaseOfDeadMaster(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lease")
	w := startWorker(t, "lease-master", path)
	pid := w.expectPID(t, "ready")
	waitDone(t, w.Process)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	id := FileID{Device: uint64(st.Dev), Inode: st.Ino}
	if !leaseHeld(t, path, id) {
		t.Error("not held")
	}
	ctx, cancel := testDeadline()
	defer cancel()
	// Also where nobody can ask the file any more.
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

// forkBare makes a child of ours that goes no further, as one that is about to
// execute a program.
//
//go:norace
func forkBare() int {
	pid, _, _ := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	for pid == 0 {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
	return int(pid)
}

// Workers are started at the same time: one that is not at its execve yet has the
// leases of the others, and must not be killed for them.
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
	buf := getBuffer()
	defer putBuffer(buf)
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
	if got, want := child.Exit(), (Exit{Signal: unix.SIGKILL, Source: ExitWait}); got != want {
		t.Errorf("Exit() = %+v, want %+v", got, want)
	}
}

// The number of a lease's inode is free once its last holder is dead and the file
// is replaced, and another worker's lease may get it: its holder is a stranger.
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

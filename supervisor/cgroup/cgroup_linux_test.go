package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

func TestFolders(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"", ".", "..", "a/b", "/a"} {
		if _, err := Create(dir, name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Create of %q: %v, want it refused", name, err)
		}
	}
	path, err := Create(dir, "worker-0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir, "worker-0"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create of one that exists: %v", err)
	}
	if _, err := Create(path, "below"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(path); err != nil {
			t.Errorf("Remove: %v", err)
		}
	}
}

// testCgroup makes a cgroup for the test, or skips the test.
func testCgroup(t *testing.T) string {
	t.Helper()
	own, err := Of(os.Getpid())
	if err != nil {
		t.Skip(err)
	}
	dir, err := Create(own, fmt.Sprintf("hsu-test-%d-%s", os.Getpid(), filepath.Base(t.TempDir())))
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		for began := time.Now(); ; time.Sleep(time.Millisecond) { // a killed process leaves it a little later
			if err := Remove(dir); err == nil {
				return
			} else if time.Since(began) > 10*time.Second {
				t.Error(err)
				return
			}
		}
	})
	return dir
}

// startIn starts a process in a cgroup and returns its PID.
func startIn(t *testing.T, dir string) int {
	t.Helper()
	folder, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	cmd := exec.Command("sleep", "1000000")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		UseCgroupFD: true, CgroupFD: int(folder.Fd()), Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	return cmd.Process.Pid
}

// All processes of a real cgroup are moved, and those below it are not.
func TestVacate(t *testing.T) {
	dir := testCgroup(t)
	below, err := Create(dir, "worker-0.token")
	if err != nil {
		t.Fatal(err)
	}
	worker := startIn(t, below)
	want := []int{startIn(t, dir), startIn(t, dir)}
	for range 2 {
		if err := vacate(dir); err != nil {
			t.Fatal(err)
		}
		moved, err := direct(filepath.Join(dir, Master))
		slices.Sort(moved)
		slices.Sort(want)
		if err != nil || !slices.Equal(moved, want) {
			t.Errorf("moved: %v, %v, want %v", moved, err, want)
		}
		if left, err := direct(dir); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
		want = append(want, startIn(t, dir)) // such as another command of the master
	}
	if members := Members(below); !slices.Equal(members, []int{worker}) {
		t.Errorf("the cgroup below has %v, want %d", members, worker)
	}
	if members := Members(dir); len(members) != len(want)+1 {
		t.Errorf("the members are %v, want also those below", members)
	}
}

// A process in the cgroup, which keeps the kernel from enabling controllers, is moved first.
func TestEnableInARealCgroup(t *testing.T) {
	dir := testCgroup(t)
	available, err := words(dir, "cgroup.controllers")
	if err != nil {
		t.Fatal(err)
	}
	if len(available) == 0 {
		t.Skip("the cgroup of this process has no controllers for those below it")
	}
	below, err := Create(dir, "worker-0.token")
	if err != nil {
		t.Fatal(err)
	}
	startIn(t, below)
	pid := startIn(t, dir)
	for _, controller := range available {
		if err := enable(dir, controller); err != nil {
			t.Errorf("%s: %v", controller, err)
		}
	}
	enabled, err := words(dir, "cgroup.subtree_control")
	slices.Sort(enabled)
	slices.Sort(available)
	if err != nil || !slices.Equal(enabled, available) {
		t.Errorf("enabled: %q, %v, want %q", enabled, err, available)
	}
	if got := content(t, dir, Master, "cgroup.procs"); got != strconv.Itoa(pid)+"\n" {
		t.Errorf("%s has the processes %q, want %d", Master, got, pid)
	}
	if _, err := os.Stat(filepath.Join(below, "pids.max")); slices.Contains(available, "pids") && err != nil {
		t.Error(err)
	}
}

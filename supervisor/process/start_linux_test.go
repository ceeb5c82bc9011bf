package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/process/sockets"
)

func TestStartedProcessIsOnItsOwn(t *testing.T) {
	// A descriptor of this process that is not close-on-exec would leak into the child. All that Go opens are, so only
	// those that Start passes may be there.
	w := startWorker(t, "descriptors")
	pid := w.expectPID(t, "ready")
	if pid != w.PID() {
		t.Errorf("the process says that it is %d, Start that it is %d", pid, w.PID())
	}
	stat, err := procfs.ReadStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	if stat.PGID != pid || stat.SID != pid {
		t.Errorf("process %d is in group %d and session %d, want its own", pid, stat.PGID, stat.SID)
	}
	got := make(map[string]string)
	for _, line := range w.stash {
		fields := strings.Fields(line)
		got[fields[1]] = fields[2]
	}
	if got["0"] != "/dev/null" {
		t.Errorf("stdin is %q, want /dev/null", got["0"])
	}
	if !strings.HasPrefix(got["1"], "pipe:") || got["1"] != got["2"] {
		t.Errorf("stdout and stderr are %q and %q, want the same pipe", got["1"], got["2"])
	}
	if got["3"] != w.family.LeasePath {
		t.Errorf("descriptor 3 is %q, want the lease %q", got["3"], w.family.LeasePath)
	}
	for n, target := range got {
		// The other descriptors are the child's own: its poller, the file in which Go's runtime reads its cgroup, and
		// the folder that it lists.
		if n > "3" && !strings.HasPrefix(target, "anon_inode:") &&
			!strings.HasPrefix(target, "/sys/fs/cgroup/") && !strings.HasPrefix(target, "/proc/") {
			t.Errorf("descriptor %s, %q, leaked into the process", n, target)
		}
	}
}

func TestStartWithoutOutputAndEnvironment(t *testing.T) {
	p, err := Start(Spec{Path: program, Args: childArgs("exit", "0")})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	waitDone(t, p)
	if got, want := p.Exit(), (identity.Exit{Source: identity.ExitWait}); got != want {
		t.Errorf("Exit() = %+v, want %+v", got, want)
	}
}

func TestStartFails(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	lease, err := CreateLease(filepath.Join(dir, "lease"))
	if err != nil {
		t.Fatal(err)
	}
	lease.Close()
	script := file("script", "#!/bin/sh\n", 0o755)
	tests := []struct {
		name string
		spec Spec
		is   error
		says string
	}{
		{"missing", Spec{Path: filepath.Join(dir, "none")}, fs.ErrNotExist, "none"},
		{"folder", Spec{Path: dir}, unix.EISDIR, "is a directory"},
		{"not executable", Spec{Path: file("data", "x", 0o644)}, fs.ErrPermission, "permission denied"},
		{"no program", Spec{Path: file("text", "hello", 0o755)}, unix.ENOEXEC, "without #!"},
		{"no folder", Spec{Path: script, Dir: filepath.Join(dir, "away")}, fs.ErrNotExist, "working folder"},
		{"folder is a file", Spec{Path: script, Dir: script}, unix.ENOTDIR, "working folder"},
		{"NUL", Spec{Path: script, Args: []string{"a\x00b"}}, unix.EINVAL, "invalid argument"},
		{"closed lease", Spec{Path: script, Lease: lease}, os.ErrClosed, "the lease is closed"},
		{"no cgroup", Spec{Path: script, Cgroup: filepath.Join(dir, "away")}, fs.ErrNotExist, "cgroup"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Start(tt.spec)
			if err == nil {
				<-p.Done()
				t.Fatal("Start succeeded")
			}
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) ||
				!strings.HasPrefix(err.Error(), "start "+tt.spec.Path+": ") {
				t.Errorf("Start: %q, want %q in it and that it is %q", err, tt.says, tt.is)
			}
		})
	}
}

// Every handle must report its own child's exit, and no child may stay a zombie.
func TestStartManyAtOnce(t *testing.T) {
	const many = 40
	var wg sync.WaitGroup
	for code := range many {
		wg.Go(func() {
			p, err := Start(Spec{Path: program, Args: childArgs("exit", []string{"11", "22", "33"}[code%3])})
			if err != nil {
				t.Error(err)
				return
			}
			defer p.Close()
			waitDone(t, p)
			want := identity.Exit{Code: []int{11, 22, 33}[code%3], Source: identity.ExitWait}
			if got := p.Exit(); got != want {
				t.Errorf("Exit() = %+v, want %+v", got, want)
			}
			if _, err := procfs.ReadStat(p.PID()); !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH) {
				t.Errorf("process %d is not reaped: %v", p.PID(), err)
			}
		})
	}
	wg.Wait()
}

func TestReservedPortIsNotInherited(t *testing.T) {
	reservation, err := sockets.Claim(0) // the kernel chooses one
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := reservation.Close(); err != nil {
			t.Error(err)
		}
	})
	w := startWorker(t, "descriptors")
	w.expect(t, "ready")
	if open := strings.Join(w.stash, ", "); strings.Contains(open, "socket:") {
		t.Errorf("a worker has inherited a socket: %s", open)
	}
}

// A program that reads its input before that is written must wait for it, and not get EAGAIN.
func TestInputBlocks(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	w := prepareWorker(t).start(t, Spec{Args: childArgs("sleep"), Input: read})
	w.expect(t, "ready")
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/0", w.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(info), "flags:\t")
	text, _, _ := strings.Cut(rest, "\n")
	if flags, err := strconv.ParseInt(text, 8, 64); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("flags of stdin are %q (%v), want them without O_NONBLOCK", text, err)
	}
}

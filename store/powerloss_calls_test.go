//go:build linux && amd64

package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// harmless are the system calls that change no file.
var harmless = func() map[uint64]bool {
	set := make(map[uint64]bool)
	for _, nr := range []uint64{
		unix.SYS_READ, unix.SYS_PREAD64, unix.SYS_LSEEK, unix.SYS_FSTAT, unix.SYS_STAT, unix.SYS_LSTAT,
		unix.SYS_NEWFSTATAT, unix.SYS_STATX, unix.SYS_FSTATFS, unix.SYS_GETDENTS64,
		unix.SYS_READLINK, unix.SYS_READLINKAT,
		unix.SYS_ACCESS, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_FLOCK, unix.SYS_GETCWD,
		unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_BRK, unix.SYS_MLOCK, unix.SYS_PRCTL,
		unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_SCHED_YIELD,
		unix.SYS_CLONE, unix.SYS_CLONE3,
		unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_GETTID, unix.SYS_GETPID, unix.SYS_GETPPID,
		unix.SYS_TGKILL, unix.SYS_KILL,
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
		unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_WAIT,
		unix.SYS_EVENTFD2, unix.SYS_PIPE2,
		unix.SYS_SCHED_GETAFFINITY, unix.SYS_GETRLIMIT, unix.SYS_PRLIMIT64, unix.SYS_SETRLIMIT, unix.SYS_UNAME,
		unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_ARCH_PRCTL,
		unix.SYS_SET_TID_ADDRESS,
		unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_GETRANDOM, unix.SYS_CLOCK_GETTIME, unix.SYS_RESTART_SYSCALL,
		unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE, unix.SYS_SETITIMER, unix.SYS_PERSONALITY,
		unix.SYS_SYSINFO, unix.SYS_MEMBARRIER,
	} {
		set[nr] = true
	}
	return set
}()

// begin records the effect that a system call is about to have.
func (tr *tracer) begin(c *sysCall) error {
	fd := int(int32(c.args[0]))
	switch c.nr {
	case unix.SYS_WRITE:
		if fd == markFD {
			b, err := tr.bytes(c.args[1], c.args[2])
			if err == nil {
				tr.rec.marks = append(tr.rec.marks, mark{tr.next(), string(b)})
			}
			return err
		}
		return tr.beginData(c, tr.open[fd], func() (int64, error) { return tr.offset(fd) })
	case unix.SYS_PWRITE64:
		return tr.beginData(c, tr.open[fd], func() (int64, error) { return int64(c.args[3]), nil })
	case unix.SYS_FTRUNCATE:
		if n := tr.open[fd]; n != nil {
			c.change(n, "truncate %s to %d", n.label, c.args[1])
			c.acts = []*diskAct{{node: n, kind: kindResize, size: int64(c.args[1])}}
		}
	case unix.SYS_FALLOCATE:
		if n := tr.open[fd]; n != nil && c.args[1] != unix.FALLOC_FL_KEEP_SIZE { // KEEP_SIZE changes no content
			return fmt.Errorf("the recorder does not know what fallocate makes of %s", n.label)
		}
	case unix.SYS_FSYNC, unix.SYS_FDATASYNC:
		if n := tr.open[fd]; n != nil {
			c.change(n, "sync %s", n.label)
			c.sync = true
		}
	case unix.SYS_CLOSE:
		delete(tr.open, fd)
	case unix.SYS_OPENAT:
		return tr.beginOpen(c)
	case unix.SYS_MKDIRAT:
		return tr.beginEntry(c, c.args[1], 0, &inode{folder: true, entries: make(map[string]*inode)}, "make folder")
	case unix.SYS_UNLINKAT:
		return tr.beginEntry(c, c.args[1], 0, nil, "remove")
	case unix.SYS_RENAMEAT:
		return tr.beginEntry(c, c.args[3], c.args[1], nil, "rename to")
	case unix.SYS_DUP, unix.SYS_DUP2, unix.SYS_DUP3, unix.SYS_FCNTL:
		reads := c.nr == unix.SYS_FCNTL &&
			(c.args[1] == unix.F_GETFL || c.args[1] == unix.F_SETFL ||
				c.args[1] == unix.F_GETFD || c.args[1] == unix.F_SETFD)
		if n := tr.open[fd]; n != nil && !reads {
			return fmt.Errorf("the recorder does not follow a second descriptor of %s", n.label)
		}
	case unix.SYS_MMAP:
		n := tr.open[int(int32(c.args[4]))]
		if n != nil && c.args[3]&unix.MAP_ANONYMOUS == 0 && c.args[3]&unix.MAP_SHARED != 0 &&
			c.args[2]&unix.PROT_WRITE != 0 {
			return fmt.Errorf("the recorder does not see what is written to a mapping of %s", n.label)
		}
	case unix.SYS_MPROTECT:
		for at, n := range tr.maps {
			if c.args[2]&unix.PROT_WRITE != 0 && c.args[0] < at+n && at < c.args[0]+c.args[1] {
				return fmt.Errorf("the recorder does not see what is written to a mapping")
			}
		}
	default:
		if !harmless[c.nr] {
			return fmt.Errorf("the recorder does not know the system call %d (descriptor %d is of %v)",
				c.nr, fd, tr.open[fd])
		}
	}
	return nil
}

func (c *sysCall) change(n *inode, format string, args ...any) {
	c.changes, c.node, c.what = true, n, fmt.Sprintf(format, args...)
}

func (tr *tracer) beginData(c *sysCall, n *inode, offset func() (int64, error)) error {
	if n == nil {
		return nil
	}
	at, err := offset()
	if err != nil {
		return err
	}
	b, err := tr.bytes(c.args[1], c.args[2])
	if err != nil {
		return err
	}
	c.change(n, "write %d bytes at %d of %s", len(b), at, n.label)
	c.acts = []*diskAct{{node: n, kind: kindData, at: at, data: b}}
	return nil
}

// offset returns the position of the child's next write to fd.
func (tr *tracer) offset(fd int) (int64, error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", tr.pid, fd))
	if err != nil {
		return 0, goneIf(errors.Is(err, fs.ErrNotExist), err)
	}
	var at, flags int64
	for line := range strings.Lines(string(info)) {
		name, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); name {
		case "pos":
			at, err = strconv.ParseInt(value, 10, 64)
		case "flags":
			flags, err = strconv.ParseInt(value, 8, 64)
		}
		if err != nil {
			return 0, err
		}
	}
	if flags&unix.O_APPEND != 0 {
		return tr.sizes[tr.open[fd]], nil
	}
	return at, nil
}

func (tr *tracer) beginOpen(c *sysCall) error {
	path, ours, err := tr.path(c.args[1])
	if err != nil || !ours {
		return err
	}
	c.node = tr.names[path]
	flags := c.args[2]
	switch {
	case c.node == nil && flags&unix.O_CREAT != 0:
		c.change(&inode{label: path}, "create %s", path)
		c.acts = []*diskAct{{
			node: tr.names[filepath.Dir(path)], kind: kindEntry, name: filepath.Base(path), to: c.node,
		}}
	case c.node != nil && flags&unix.O_TRUNC != 0:
		c.change(c.node, "truncate %s by opening it", path)
		c.acts = []*diskAct{{node: c.node, kind: kindResize}}
	}
	return nil
}

// beginEntry records a change of a directory: afterwards path leads to the inode to or, if from is not 0, to the
// inode that was at from.
func (tr *tracer) beginEntry(c *sysCall, path, from uint64, to *inode, what string) error {
	at, ours, err := tr.path(path)
	if err != nil {
		return err
	}
	a := &diskAct{node: tr.names[filepath.Dir(at)], kind: kindEntry, name: filepath.Base(at), to: to}
	if from != 0 {
		old, oursToo, err := tr.path(from)
		if err != nil {
			return err
		}
		if ours != oursToo || ours && filepath.Dir(old) != filepath.Dir(at) {
			return fmt.Errorf("the child renames %s to %s: the recorder knows no rename from folder to folder", old, at)
		}
		a.from, a.to = filepath.Base(old), tr.names[old]
		if a.to != nil && a.to.folder {
			return fmt.Errorf("the child renames %s: the recorder knows no rename of a folder", old)
		}
		what = "rename " + old + " to"
	}
	if !ours {
		return nil
	}
	if a.to != nil && a.to.label == "" {
		a.to.label = at
	}
	c.change(a.node, "%s %s", what, at)
	c.acts = []*diskAct{a}
	return nil
}

// end records the effect of a system call that has returned.
func (tr *tracer) end(c *sysCall, result int64) error {
	switch {
	case c.nr == unix.SYS_OPENAT && result >= 0:
		delete(tr.open, int(result))
		if c.node != nil {
			tr.open[int(result)] = c.node
		}
	case c.nr == unix.SYS_MMAP && result > 0 && tr.open[int(int32(c.args[4]))] != nil:
		tr.maps[uint64(result)] = c.args[1]
	case c.nr == unix.SYS_MUNMAP:
		delete(tr.maps, c.args[0])
	}
	if !c.changes {
		return nil
	}
	if c.kill && !c.done {
		return nil
	}
	end := tr.next()
	if c.sync {
		if result >= 0 || c.errno != 0 {
			tr.rec.syncs = append(tr.rec.syncs, syncCall{c.start, end, c.node, c.errno != 0})
		}
		return nil
	}
	if result < 0 {
		return nil
	}
	for _, a := range c.acts {
		if a.node == nil {
			return fmt.Errorf("%s: in a folder that the recorder does not know", c.what)
		}
		switch a.kind {
		case kindData:
			a.data = a.data[:result]
			if to := a.at + result; to > tr.sizes[a.node] {
				tr.sizes[a.node] = to
				tr.note(c, end, &diskAct{node: a.node, kind: kindExtend, size: to})
			}
		case kindResize:
			if a.size > tr.sizes[a.node] && a.size == 0 {
				continue
			}
			tr.sizes[a.node] = a.size
		case kindEntry:
			tr.rename(a)
		case kindExtend: // recorded with the data above
		}
		tr.note(c, end, a)
	}
	return nil
}

func (tr *tracer) note(c *sysCall, end int, a *diskAct) {
	a.start, a.end, a.what = c.start, end, c.what
	if a.kind == kindExtend {
		a.what += " (its size)"
	}
	tr.rec.acts = append(tr.rec.acts, a)
}

// rename updates the names after a change of a directory.
func (tr *tracer) rename(a *diskAct) {
	folder := ""
	for path, n := range tr.names {
		if n == a.node {
			folder = path
		}
	}
	if a.from != "" {
		delete(tr.names, filepath.Join(folder, a.from))
	}
	if at := filepath.Join(folder, a.name); a.to == nil {
		delete(tr.names, at)
	} else {
		tr.names[at] = a.to
	}
}

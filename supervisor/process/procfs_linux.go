package process

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
)

// buffers holds buffers for reads of /proc: one pass reads hundreds of files.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, 32<<10)
	return &b
}}

const (
	maxPooled = 256 << 10
	maxFile   = 8 << 20 // argv and environ together stay below 6 MiB (execve(2))
)

func getBuffer() *[]byte { return buffers.Get().(*[]byte) }

func putBuffer(b *[]byte) {
	if len(*b) <= maxPooled {
		buffers.Put(b)
	}
}

// retry calls f until it is not interrupted by a signal.
func retry[T any](f func() (T, error)) (T, error) {
	for {
		v, err := f()
		if err != unix.EINTR { //nolint:errorlint // a bare errno, and a hot path
			return v, err
		}
	}
}

// readAll reads a whole file in /proc with bare system calls: os.File would add those of the netpoller to each
// file. The text lies in *buf, which grows as needed, and is valid until the next read into *buf. Errors are bare
// errnos.
func readAll(path string, buf *[]byte) ([]byte, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0) })
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for used := 0; ; {
		n, err := retry(func() (int, error) { return unix.Read(fd, (*buf)[used:]) })
		if err != nil {
			return nil, err
		}
		used += n
		// These files are short only at their end, which saves the read that returns 0.
		if n == 0 || used < len(*buf) {
			return (*buf)[:used], nil
		}
		if used >= maxFile {
			return nil, unix.EFBIG
		}
		*buf = append(*buf, make([]byte, len(*buf))...)
	}
}

// numbers returns the entries of a folder whose names are numbers: PIDs, thread IDs or descriptors.
func numbers(path string, buf *[]byte) ([]int, error) {
	var found []int
	err := walkNumbers(path, *buf, func(some []int) bool {
		found = append(found, some...)
		return true
	})
	return found, err
}

// walkNumbers calls visit with the numbers in a folder, as many at a time as fit into buf, until visit returns
// false.
func walkNumbers(path string, buf []byte, visit func(some []int) bool) error {
	var some []int
	return walkEntries(path, buf, func(records []byte) bool {
		some = appendNumbers(some[:0], records)
		return visit(some)
	})
}

// walkEntries calls visit with the entries of a folder, in the form of getdents(2), as many at a time as fit into buf,
// until visit returns false.
func walkEntries(path string, buf []byte, visit func(records []byte) bool) error {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		n, err := retry(func() (int, error) { return unix.Getdents(fd, buf) })
		if err != nil || n <= 0 || !visit(buf[:n]) {
			return err
		}
	}
}

// appendNumbers appends the names that are numbers.
func appendNumbers(found []int, records []byte) []int {
	for number := range numbered(records) {
		found = append(found, number)
	}
	return found
}

// numbered yields the names that are numbers, each with the inode of the entry. It reads linux_dirent64 records
// (getdents(2)): inode 8 bytes, offset 8, length 2, type 1, then the name and a NUL.
func numbered(records []byte) iter.Seq2[int, uint64] {
	const head = 19
	return func(yield func(int, uint64) bool) {
		for len(records) > head {
			length := int(binary.NativeEndian.Uint16(records[16:]))
			if length <= head || length > len(records) {
				return
			}
			name, _, _ := bytes.Cut(records[head:length], []byte{0})
			n, err := strconv.ParseUint(string(name), 10, 31)
			if err == nil && !yield(int(n), binary.NativeEndian.Uint64(records)) {
				return
			}
			records = records[length:]
		}
	}
}

// procPath returns the path of a file about a process.
func procPath(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

func taskPath(pid, tid int, name string) string {
	return "/proc/" + strconv.Itoa(pid) + "/task/" + strconv.Itoa(tid) + "/" + name
}

// readStat returns the stat of a process's first thread. Errors are bare errnos, except errStat.
func readStat(pid int) (taskStat, error) {
	buf := getBuffer()
	defer putBuffer(buf)
	line, err := readAll(procPath(pid, "stat"), buf)
	if err != nil {
		return taskStat{}, err
	}
	return parseStat(line)
}

// readLife is like readStat, but looks at the other threads if the first one has ended or is stopped. A State of
// 'Z' then really means a dead process. If every living thread is stopped, State is 'T' or 't'; otherwise it is
// that of a thread that is not stopped.
func readLife(pid int) (taskStat, error) {
	s, err := readStat(pid)
	if err != nil || s.Threads <= 1 || !s.ended() && !s.stopped() {
		return s, err
	}
	buf := getBuffer()
	defer putBuffer(buf)
	threads, err := numbers(procPath(pid, "task"), buf)
	if err != nil {
		return s, err
	}
	for _, tid := range threads {
		line, err := readAll(taskPath(pid, tid, "stat"), buf)
		if err != nil {
			continue // this thread has ended
		}
		t, err := parseStat(line)
		switch {
		case err != nil || t.ended():
		case t.stopped():
			s.State = t.State
		default:
			s.State = t.State
			return s, nil
		}
	}
	return s, nil
}

// livingThread returns a thread of pid that still has its memory and descriptors: pid itself, unless the first
// thread has ended before the others.
func livingThread(pid int) (int, error) {
	s, err := readStat(pid)
	if err != nil || !s.ended() {
		return pid, err
	}
	buf := getBuffer()
	defer putBuffer(buf)
	threads, err := numbers(procPath(pid, "task"), buf)
	if err != nil {
		return 0, err
	}
	slices.Reverse(threads)
	for _, tid := range threads {
		if line, err := readAll(taskPath(pid, tid, "stat"), buf); err == nil {
			if t, err := parseStat(line); err == nil && !t.ended() {
				return tid, nil
			}
		}
	}
	return 0, unix.ESRCH
}

// descriptors returns a process's open descriptors, and the folder that contains fd/N and fdinfo/N. If the first
// thread has ended, and so has no descriptors, they are those of a living thread.
func descriptors(pid int, buf *[]byte) (folder string, open []int, err error) {
	folder = "/proc/" + strconv.Itoa(pid)
	open, err = numbers(folder+"/fd", buf)
	if err != nil && !denied(err) || len(open) > 0 {
		return folder, open, err
	}
	tid, threadErr := livingThread(pid)
	if threadErr != nil || tid == pid {
		return folder, nil, err
	}
	folder += "/task/" + strconv.Itoa(tid)
	open, err = numbers(folder+"/fd", buf)
	return folder, open, err
}

// eachOpen calls visit with each descriptor of a process that has a file open, until visit returns false:
// folder/fd/name is the file, folder/fdinfo/name its description. It fails if the descriptors cannot be read.
func eachOpen(pid int, file identity.FileID, buf *[]byte, visit func(folder, name string) bool) error {
	folder, open, err := descriptors(pid, buf)
	if err != nil {
		return err
	}
	for _, n := range open {
		name := strconv.Itoa(n)
		if id, ok := openFileID(folder + "/fd/" + name); ok && id == file && !visit(folder, name) {
			return nil
		}
	}
	return nil
}

// openFileID returns the file behind a descriptor in /proc.
func openFileID(link string) (identity.FileID, bool) {
	id, _, ok := fileBehind(link)
	return id, ok
}

// fileBehind is openFileID, and reports whether the file is a regular one.
func fileBehind(link string) (id identity.FileID, regular, ok bool) {
	var st unix.Statx_t
	// DONT_SYNC: a hung network file system must not block this process.
	const mask = unix.STATX_INO | unix.STATX_TYPE
	if unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC, mask, &st) != nil {
		return identity.FileID{}, false, false
	}
	id = identity.FileID{Device: unix.Mkdev(st.Dev_major, st.Dev_minor), Inode: st.Ino}
	return id, st.Mode&unix.S_IFMT == unix.S_IFREG, true
}

// environState is the result of reading a process's environment.
type environState int

const (
	environRead    environState = iota
	environCleared              // empty, or no longer readable
	environDenied               // no ptrace access: another user's process, or an undumpable one
	environInExec               // inside execve: read it again
	environNone                 // a kernel thread, a dead process, or no process
)

// readEnviron returns a process's environment as it was at the start, including overwrites by the process itself.
// The text lies in *buf.
//
// If the process has no memory (any more), open fails with ESRCH since Linux 6.16; on older kernels it succeeds
// and the file is empty. For users other than root it fails with EACCES, because the file then belongs to root.
// This concerns kernel threads, dead processes, and a first thread that ended before the others.
func readEnviron(pid int, buf *[]byte) ([]byte, environState) {
	environ, err := readAll(procPath(pid, "environ"), buf)
	switch {
	case err == nil && len(environ) > 0:
		return environ, environRead
	case err == unix.ENOENT: //nolint:errorlint // a bare errno
		return nil, environNone
	case err == unix.ESRCH: //nolint:errorlint // a bare errno
		if threads, _ := countThreads(pid); threads <= 1 {
			return nil, environNone
		}
		return readThreadEnviron(pid, buf)
	case denied(err):
		if _, uid := countThreads(pid); uid != uint32(os.Geteuid()) {
			return nil, environDenied // in any case this process may not read it
		}
	}
	s, statErr := readStat(pid)
	switch {
	case statErr != nil || s.Flags&kernelThread != 0:
		return nil, environNone
	case s.ended() && s.Threads <= 1:
		return nil, environNone
	case s.ended():
		return readThreadEnviron(pid, buf)
	case denied(err):
		return nil, environDenied
	case s.EnvEnd == 0:
		return nil, environInExec
	}
	return nil, environCleared
}

// denied reports whether an errno means missing permission.
func denied(err error) bool {
	return err == unix.EACCES || err == unix.EPERM //nolint:errorlint // bare errnos
}

// countThreads returns the number of threads of a process and its effective UID. It reads them from the process's
// task folder, which is the cheapest way.
func countThreads(pid int) (threads int, uid uint32) {
	var task unix.Stat_t
	if unix.Stat(procPath(pid, "task"), &task) != nil {
		return 0, 0
	}
	return int(task.Nlink) - 2, task.Uid
}

// readThreadEnviron reads the environment through a living thread.
func readThreadEnviron(pid int, buf *[]byte) ([]byte, environState) {
	tid, err := livingThread(pid)
	if err != nil {
		return nil, environNone
	}
	environ, err := readAll(taskPath(pid, tid, "environ"), buf)
	switch {
	case err == nil && len(environ) > 0:
		return environ, environRead
	case denied(err):
		return nil, environDenied
	case err == unix.ESRCH || err == unix.ENOENT: //nolint:errorlint // bare errnos
		return nil, environNone
	}
	return nil, environCleared
}

// procChecked is set once checkProc has succeeded.
var procChecked atomic.Bool

// checkProc checks that the PIDs in /proc are those that system calls take. In a /proc mounted for another PID
// namespace they name other processes, so that evidence about one process would cause a signal to another.
func checkProc() error {
	if procChecked.Load() {
		return nil
	}
	target, err := os.Readlink("/proc/self")
	if err != nil {
		return fmt.Errorf("read /proc/self: %w", err)
	}
	buf := getBuffer()
	defer putBuffer(buf)
	status, err := readAll("/proc/self/status", buf)
	if err != nil {
		return fmt.Errorf("read /proc/self/status: %w", err)
	}
	if target != strconv.Itoa(os.Getpid()) || !ownNamespace(status) {
		return errors.New("/proc is mounted for another pid namespace")
	}
	procChecked.Store(true)
	return nil
}

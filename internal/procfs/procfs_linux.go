package procfs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/eintr"
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

// GetBuffer returns a buffer for reads, until [PutBuffer].
func GetBuffer() *[]byte { return buffers.Get().(*[]byte) }

// PutBuffer takes a buffer back.
func PutBuffer(b *[]byte) {
	if len(*b) <= maxPooled {
		buffers.Put(b)
	}
}

// ReadAll reads a whole file in /proc with bare system calls: os.File would add those of the netpoller to each
// file. The text lies in *buf, which grows as needed, and is valid until the next read into *buf. Errors are bare
// errnos.
func ReadAll(path string, buf *[]byte) ([]byte, error) {
	fd, err := eintr.Retry(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	})
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for used := 0; ; {
		n, err := eintr.Retry(func() (int, error) { return unix.Read(fd, (*buf)[used:]) })
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

// Path returns the path of a file about a process.
func Path(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

// TaskPath returns the path of a file about a thread.
func TaskPath(pid, tid int, name string) string {
	return "/proc/" + strconv.Itoa(pid) + "/task/" + strconv.Itoa(tid) + "/" + name
}

// ReadStat returns the stat of a process's first thread. Errors are bare errnos, except errStat.
func ReadStat(pid int) (Stat, error) {
	buf := GetBuffer()
	defer PutBuffer(buf)
	line, err := ReadAll(Path(pid, "stat"), buf)
	if err != nil {
		return Stat{}, err
	}
	return ParseStat(line)
}

// ReadLife is like ReadStat, but looks at the other threads if the first one has ended or is stopped. A State of
// 'Z' then really means a dead process. If every living thread is stopped, State is 'T' or 't'; otherwise it is
// that of a thread that is not stopped.
func ReadLife(pid int) (Stat, error) {
	s, err := ReadStat(pid)
	if err != nil || s.Threads <= 1 || !s.Ended() && !s.Stopped() {
		return s, err
	}
	buf := GetBuffer()
	defer PutBuffer(buf)
	threads, err := Numbers(Path(pid, "task"), buf)
	if err != nil {
		return s, err
	}
	for _, tid := range threads {
		line, err := ReadAll(TaskPath(pid, tid, "stat"), buf)
		if err != nil {
			continue // this thread has ended
		}
		t, err := ParseStat(line)
		switch {
		case err != nil || t.Ended():
		case t.Stopped():
			s.State = t.State
		default:
			s.State = t.State
			return s, nil
		}
	}
	return s, nil
}

// LivingThread returns a thread of pid that still has its memory and descriptors: pid itself, unless the first
// thread has ended before the others.
func LivingThread(pid int) (int, error) {
	s, err := ReadStat(pid)
	if err != nil || !s.Ended() {
		return pid, err
	}
	buf := GetBuffer()
	defer PutBuffer(buf)
	threads, err := Numbers(Path(pid, "task"), buf)
	if err != nil {
		return 0, err
	}
	slices.Reverse(threads)
	for _, tid := range threads {
		if line, err := ReadAll(TaskPath(pid, tid, "stat"), buf); err == nil {
			if t, err := ParseStat(line); err == nil && !t.Ended() {
				return tid, nil
			}
		}
	}
	return 0, unix.ESRCH
}

// checked is set once Check has succeeded.
var checked atomic.Bool

// Check checks that the PIDs in /proc are those that system calls take. In a /proc mounted for another PID
// namespace they name other processes, so that evidence about one process would cause a signal to another.
func Check() error {
	if checked.Load() {
		return nil
	}
	target, err := os.Readlink("/proc/self")
	if err != nil {
		return fmt.Errorf("read /proc/self: %w", err)
	}
	buf := GetBuffer()
	defer PutBuffer(buf)
	status, err := ReadAll("/proc/self/status", buf)
	if err != nil {
		return fmt.Errorf("read /proc/self/status: %w", err)
	}
	if target != strconv.Itoa(os.Getpid()) || !ownNamespace(status) {
		return errors.New("/proc is mounted for another pid namespace")
	}
	checked.Store(true)
	return nil
}

// RealUID returns the real uid of a process: a setuid program has another effective uid.
func RealUID(pid int, buf *[]byte) (uint32, error) {
	status, err := ReadAll(Path(pid, "status"), buf)
	if err != nil {
		return 0, err
	}
	uid, _, err := UserOf(status)
	return uid, err
}

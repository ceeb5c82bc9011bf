package procfs

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// EnvironState is the result of reading a process's environment.
type EnvironState int

// The results of [ReadEnviron].
const (
	EnvironRead    EnvironState = iota
	EnvironCleared              // empty, or no longer readable
	EnvironDenied               // no ptrace access: another user's process, or an undumpable one
	EnvironInExec               // inside execve: read it again
	EnvironNone                 // a kernel thread, a dead process, or no process
)

// ReadEnviron returns a process's environment as it was at the start, including overwrites by the process itself.
// The text lies in *buf.
//
// If the process has no memory (any more), open fails with ESRCH since Linux 6.16; on older kernels it succeeds
// and the file is empty. For users other than root it fails with EACCES, because the file then belongs to root.
// This concerns kernel threads, dead processes, and a first thread that ended before the others.
func ReadEnviron(pid int, buf *[]byte) ([]byte, EnvironState) {
	environ, err := ReadAll(Path(pid, "environ"), buf)
	switch {
	case err == nil && len(environ) > 0:
		return environ, EnvironRead
	case err == unix.ENOENT: //nolint:errorlint // a bare errno
		return nil, EnvironNone
	case err == unix.ESRCH: //nolint:errorlint // a bare errno
		if threads, _ := countThreads(pid); threads <= 1 {
			return nil, EnvironNone
		}
		return readThreadEnviron(pid, buf)
	case Denied(err):
		if _, uid := countThreads(pid); uid != uint32(os.Geteuid()) {
			return nil, EnvironDenied // in any case this process may not read it
		}
	}
	s, statErr := ReadStat(pid)
	switch {
	case statErr != nil || s.KernelThread():
		return nil, EnvironNone
	case s.Ended() && s.Threads <= 1:
		return nil, EnvironNone
	case s.Ended():
		return readThreadEnviron(pid, buf)
	case Denied(err):
		return nil, EnvironDenied
	case s.EnvEnd == 0:
		return nil, EnvironInExec
	}
	return nil, EnvironCleared
}

// Denied reports whether an errno means missing permission.
func Denied(err error) bool {
	return err == unix.EACCES || err == unix.EPERM //nolint:errorlint // bare errnos
}

// countThreads returns the number of threads of a process and its effective UID. It reads them from the process's
// task folder, which is the cheapest way.
func countThreads(pid int) (threads int, uid uint32) {
	var task unix.Stat_t
	if unix.Stat(Path(pid, "task"), &task) != nil {
		return 0, 0
	}
	return int(task.Nlink) - 2, task.Uid
}

// readThreadEnviron reads the environment through a living thread.
func readThreadEnviron(pid int, buf *[]byte) ([]byte, EnvironState) {
	tid, err := LivingThread(pid)
	if err != nil {
		return nil, EnvironNone
	}
	environ, err := ReadAll(TaskPath(pid, tid, "environ"), buf)
	switch {
	case err == nil && len(environ) > 0:
		return environ, EnvironRead
	case Denied(err):
		return nil, EnvironDenied
	case err == unix.ESRCH || err == unix.ENOENT: //nolint:errorlint // bare errnos
		return nil, EnvironNone
	}
	return nil, EnvironCleared
}

// HasOwnEnviron reports whether a process has the environment that it was started with. A child of this process has
// that of this process until its execve, and none inside of it.
func HasOwnEnviron(stat Stat) bool {
	return stat.PPID != os.Getpid() || stat.EnvEnd != 0 && stat.EnvEnd != ownEnvEnd()
}

// ownEnvEnd returns field 51 of this process's own stat, which never changes.
var ownEnvEnd = sync.OnceValue(func() uint64 {
	stat, _ := ReadStat(os.Getpid())
	return stat.EnvEnd
})

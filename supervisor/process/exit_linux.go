package process

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/eintr"
	"github.com/core-tools/hsu-master/internal/procfs"
)

// reapPatience bounds the wait for another parent to reap a process, after which Linux 6.15 reports how the
// process ended. Most parents reap within a millisecond; one that never does must not delay a restart.
const reapPatience = 5 * time.Millisecond

// learnExit finds out how a process that has just died ended. It tries the certain sources before the fleeting
// ones: another parent may reap the process at any moment, and then its /proc entry is gone.
func (p *Process) learnExit() identity.Exit {
	exit := identity.Exit{}
	ask := func(fd int) error {
		if status, ok := reap(fd, p.id.PID); ok {
			exit = exitOf(status, identity.ExitWait)
		} else if status, ok := exitInfo(fd); ok {
			exit = exitOf(status, identity.ExitPidfd)
		} else if status, ok := statExit(fd, p.id.PID); ok {
			exit = exitOf(status, identity.ExitStat)
		} else if status, ok := exitInfo(fd); ok { // reaped meanwhile
			exit = exitOf(status, identity.ExitPidfd)
		}
		return nil
	}
	if err := p.control(ask); err != nil || exit.Source != identity.ExitUnknown {
		return exit
	}
	// Since Linux 6.9 a poll of the pidfd wakes when the process is reaped.
	if err := p.file.SetReadDeadline(time.Now().Add(reapPatience)); err != nil {
		return exit
	}
	err := p.conn.Read(func(fd uintptr) bool { return pidfdEvents(int(fd))&unix.POLLHUP != 0 })
	if err != nil && !os.IsTimeout(err) {
		return exit // Close was called
	}
	_ = p.control(ask)
	return exit
}

// reap reaps the process behind fd if it is a child of this process, however it came to be watched. The kernel
// returns ECHILD if it is not a child.
func reap(fd, pid int) (unix.WaitStatus, bool) {
	reaping.Lock()
	defer reaping.Unlock()
	// WNOWAIT leaves the child a zombie, so that the PID below is certainly the child's: all other code that reaps
	// holds the lock.
	_, err := eintr.Retry(func() (int, error) {
		return 0, unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	})
	if err != nil {
		return 0, false
	}
	var status unix.WaitStatus
	reaped, err := eintr.Retry(func() (int, error) { return unix.Wait4(pid, &status, unix.WNOHANG, nil) })
	return status, err == nil && reaped == pid
}

// statExit reads the wait status of a zombie from /proc/PID/stat. Field 52 is valid only with ptrace access;
// without, it reads 0, as after a clean exit.
func statExit(fd, pid int) (unix.WaitStatus, bool) {
	stat, err := procfs.ReadStat(pid)
	if err != nil || stat.State != 'Z' || stat.Threads > 1 {
		return 0, false
	}
	if stat.ExitCode == 0 && !canTrace(pid) {
		return 0, false
	}
	return unix.WaitStatus(stat.ExitCode), unreaped(fd)
}

// canTrace reports whether this process has ptrace access to another process, dead or alive. The ns/pid link is
// guarded by PTRACE_MODE_READ_FSCREDS, as is field 52 of stat (ptrace(2)), and a zombie still has the link.
func canTrace(pid int) bool {
	var target [64]byte
	n, err := unix.Readlink(procfs.Path(pid, "ns/pid"), target[:])
	return err == nil && n > 0
}

func exitOf(status unix.WaitStatus, source identity.ExitSource) identity.Exit {
	if status.Signaled() {
		return identity.Exit{Signal: syscall.Signal(status.Signal()), Source: source}
	}
	return identity.Exit{Code: status.ExitStatus(), Source: source}
}

package process

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/eintr"
	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

// supported is set once checkSupport has succeeded.
var supported atomic.Bool

// checkSupport checks that this kernel has what this package depends on: pidfd_open (Linux 5.3), waitid with
// P_PIDFD (5.4), and a /proc of this process's PID namespace.
func checkSupport() error {
	if supported.Load() {
		return nil
	}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err == nil {
		err = unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED|unix.WNOHANG, nil)
		unix.Close(fd)
	}
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPERM):
		return fmt.Errorf("pidfd_open and waitid by pidfd (Linux 5.4, not filtered): %w (%w)",
			errors.ErrUnsupported, err)
	case err != nil && !errors.Is(err, unix.ECHILD):
		return fmt.Errorf("try pidfd_open: %w", err)
	}
	if err := procfs.Check(); err != nil {
		return err
	}
	supported.Store(true)
	return nil
}

// openPidfd opens a process by its PID, nonblocking for the netpoller. It returns ErrGone if no process has the
// PID. That includes a number of a thread, for which the kernel returns ENOENT, or EINVAL before Linux 6.15
// (tried).
func openPidfd(pid int) (int, error) {
	if pid < 1 {
		return -1, fmt.Errorf("%w: no pid is recorded", ErrUnverifiable)
	}
	fd, err := eintr.Retry(func() (int, error) { return unix.PidfdOpen(pid, 0) })
	switch {
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL):
		return -1, ErrGone
	case err != nil:
		return -1, fmt.Errorf("pidfd_open: %w", err)
	}
	// PIDFD_NONBLOCK exists only since Linux 5.10.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set the pidfd nonblocking: %w", err)
	}
	return fd, nil
}

// pidfdInode returns the inode that proves an identity. It returns false before Linux 6.9, where all pidfds share
// one anonymous inode.
func pidfdInode(fd int) (inode uint64, ok bool, err error) {
	if kernel.Withheld.Pidfs.Load() {
		return 0, false, nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return 0, false, fmt.Errorf("fstatfs of the pidfd: %w", err)
	}
	if uint32(fs.Type) != unix.PID_FS_MAGIC {
		return 0, false, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, false, fmt.Errorf("fstat of the pidfd: %w", err)
	}
	return st.Ino, true, nil
}

// pidfdEvents returns the current poll events of a pidfd: POLLIN once all threads have ended, and also POLLHUP
// once the process is reaped (Linux 6.9).
func pidfdEvents(fd int) int16 {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := eintr.Retry(func() (int, error) { return unix.Poll(fds, 0) })
	if err != nil || n < 1 {
		return 0
	}
	return fds[0].Revents
}

// unreaped reports whether the pidfd's process still exists, if only as a zombie. If so, no other process has had
// its PID since the pidfd was opened, and everything read by the PID in between belongs to the process.
func unreaped(fd int) bool {
	return !errors.Is(unix.PidfdSendSignal(fd, 0, nil, 0), unix.ESRCH)
}

// pidfdInfo is struct pidfd_info of linux/pidfd.h in its first published layout; the exit code later replaced the
// padding.
type pidfdInfo struct {
	mask, cgroupID                                                  uint64
	pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fuid, fgid uint32
	exitCode                                                        int32
}

// exitInfo asks a pidfd for the wait status of a process that another parent has reaped. The pidfd must have been
// opened before that (Linux 6.15).
func exitInfo(fd int) (unix.WaitStatus, bool) {
	if kernel.Withheld.ExitInfo.Load() {
		return 0, false
	}
	// PIDFD_GET_INFO of x/sys encodes the size of a longer struct; the kernel accepts any size from the first
	// published one on.
	const request = unix.PIDFD_GET_INFO&^(0x3fff<<16) | unix.PIDFD_INFO_SIZE_VER0<<16
	info := pidfdInfo{mask: unix.PIDFD_INFO_EXIT}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&info)))
	if errno != 0 || info.mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false
	}
	return unix.WaitStatus(info.exitCode), true
}

package process

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// withheld makes tests see an older kernel than the one they run on.
var withheld struct {
	pidfs       atomic.Bool // Linux 6.9: an inode per process
	groupSignal atomic.Bool // Linux 6.9: PIDFD_SIGNAL_PROCESS_GROUP
	exitInfo    atomic.Bool // Linux 6.15: PIDFD_INFO_EXIT
	sockDiag    atomic.Bool // a kernel or sandbox without NETLINK_SOCK_DIAG
	cgroupKill  atomic.Bool // Linux 5.14: cgroup.kill
	cgroupClone atomic.Bool // Linux 5.7: CLONE_INTO_CGROUP
}

// supported is set once checkSupport has succeeded.
var supported atomic.Bool

// checkSupport makes sure that this kernel has what everything else stands on:
// pidfd_open (Linux 5.3) and waitid with P_PIDFD (5.4), and a /proc of our own.
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
		return fmt.Errorf("pidfd_open and waitid by pidfd (Linux 5.4, not filtered): %w (%w)", errors.ErrUnsupported, err)
	case err != nil && !errors.Is(err, unix.ECHILD):
		return fmt.Errorf("try pidfd_open: %w", err)
	}
	if err := checkProc(); err != nil {
		return err
	}
	supported.Store(true)
	return nil
}

// openPidfd opens a process by its number, nonblocking for the netpoller. A number
// that nobody has gives ErrGone, also where it is a thread's: ENOENT, or EINVAL
// before Linux 6.15 (tried).
func openPidfd(pid int) (int, error) {
	if pid < 1 {
		return -1, fmt.Errorf("%w: no pid is recorded", ErrUnverifiable)
	}
	fd, err := retry(func() (int, error) { return unix.PidfdOpen(pid, 0) })
	switch {
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL):
		return -1, ErrGone
	case err != nil:
		return -1, fmt.Errorf("pidfd_open: %w", err)
	}
	// PIDFD_NONBLOCK exists since Linux 5.10 only.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set the pidfd nonblocking: %w", err)
	}
	return fd, nil
}

// pidfdInode returns the inode that proves an identity; ok is false before Linux
// 6.9, where all pidfds share one anonymous inode.
func pidfdInode(fd int) (inode uint64, ok bool, err error) {
	if withheld.pidfs.Load() {
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

// pidfdEvents returns what poll says of a pidfd now: POLLIN once all threads have
// ended, POLLHUP too once it is reaped (Linux 6.9).
func pidfdEvents(fd int) int16 {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := retry(func() (int, error) { return unix.Poll(fds, 0) })
	if err != nil || n < 1 {
		return 0
	}
	return fds[0].Revents
}

// unreaped says that the pidfd's process still exists, if only as a zombie: then
// its number has been nobody else's since the pidfd was opened, and what was read
// about the number in between was read about the process.
func unreaped(fd int) bool {
	return !errors.Is(unix.PidfdSendSignal(fd, 0, nil, 0), unix.ESRCH)
}

// pidfdInfo is struct pidfd_info of linux/pidfd.h as it was first published; the
// exit code came in the place of its padding.
type pidfdInfo struct {
	mask, cgroupID                                                  uint64
	pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fuid, fgid uint32
	exitCode                                                        int32
}

// exitInfo asks a pidfd for the wait status of a process that another parent has
// reaped. It must have been opened before (Linux 6.15).
func exitInfo(fd int) (unix.WaitStatus, bool) {
	if withheld.exitInfo.Load() {
		return 0, false
	}
	// PIDFD_GET_INFO of x/sys encodes the size of a longer struct; the kernel takes
	// any size from the first one on.
	const request = unix.PIDFD_GET_INFO&^(0x3fff<<16) | unix.PIDFD_INFO_SIZE_VER0<<16
	info := pidfdInfo{mask: unix.PIDFD_INFO_EXIT}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&info)))
	if errno != 0 || info.mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false
	}
	return unix.WaitStatus(info.exitCode), true
}

package process

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
)

// Handle returns a pidfd of the process for a keeper that outlives this program,
// such as the file descriptor store of systemd: see [ExitOf]. The caller closes it.
func (p *Process) Handle() (*os.File, error) {
	var dup int
	err := p.control(func(fd int) (err error) {
		dup, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("duplicate the pidfd of process %d: %w", p.id.PID, err)
	}
	return os.NewFile(uintptr(dup), "pidfd"), nil
}

// ExitOf returns how the process behind a kept handle ended. It returns false while the process lives, before its
// parent has reaped it, and if the kernel does not report it (before Linux 6.15).
func ExitOf(handle *os.File) (identity.Exit, bool) {
	conn, err := handle.SyscallConn()
	if err != nil {
		return identity.Exit{}, false
	}
	var status unix.WaitStatus
	var known bool
	err = conn.Control(func(fd uintptr) { status, known = exitInfo(int(fd)) })
	if err != nil || !known {
		return identity.Exit{}, false
	}
	return exitOf(status, identity.ExitPidfd), true
}

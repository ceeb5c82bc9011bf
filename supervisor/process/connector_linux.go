package process

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

// Connector is the process that has connected to a unix socket of this process.
type Connector struct {
	PID int
	UID uint32

	conn  *net.UnixConn
	since uint64 // when it was accepted, in clock ticks after boot
}

// ConnectorOf returns the process at the other end of a connection that this process has just accepted: the process
// that connected, even if another one uses the connection now.
func ConnectorOf(conn *net.UnixConn) (*Connector, error) {
	ticks := BootTime() / procfs.Tick
	c := &Connector{conn: conn, since: uint64(ticks)} //nolint:gosec // not negative
	err := c.control(func(fd int) error {
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil {
			c.PID, c.UID = int(cred.Pid), cred.Uid
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find the process that connected: %w", err)
	}
	return c, nil
}

// Open opens the process. It returns ErrGone if the process has ended.
func (c *Connector) Open() (*Process, error) {
	p, err := c.open()
	if err != nil {
		return nil, fmt.Errorf("open process %d, which connected: %w", c.PID, err)
	}
	return p, nil
}

func (c *Connector) open() (*Process, error) {
	if c.PID < 1 {
		return nil, fmt.Errorf("%w: %w", ErrUnverifiable, ErrElsewhere)
	}
	fd, err := c.pidfd()
	if errors.Is(err, unix.ENOPROTOOPT) {
		return c.openByPID()
	}
	if err != nil {
		return nil, err
	}
	id, err := identify(fd, c.PID)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // for the netpoller
		unix.Close(fd)
		return nil, err
	}
	return watch(fd, id, ignore)
}

// pidfd asks the kernel for a pidfd of the process (Linux 6.5), which no other process can be taken for.
func (c *Connector) pidfd() (pidfd int, err error) {
	if kernel.Withheld.PeerPidfd.Load() {
		return 0, unix.ENOPROTOOPT
	}
	err = c.control(func(fd int) (err error) {
		pidfd, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		return err
	})
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODATA) {
		return 0, ErrGone
	}
	return pidfd, err
}

// openByPID is for older kernels. Another process can have got the PID since; that one is younger than the connection.
func (c *Connector) openByPID() (*Process, error) {
	p, err := openPID(c.PID, ignore)
	if err != nil {
		return nil, err
	}
	if p.Identity().StartTicks > c.since {
		return nil, errors.Join(fmt.Errorf("%w: another process has its pid", ErrGone), p.Close())
	}
	return p, nil
}

func (c *Connector) control(f func(fd int) error) error {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := raw.Control(func(fd uintptr) { result = f(int(fd)) }); err != nil {
		return err
	}
	return result
}

// Ancestors returns the PIDs of the parents of a process, the nearest one first.
func Ancestors(pid int) []int {
	var found []int
	for known := map[int]bool{}; pid > 1 && !known[pid]; {
		known[pid] = true
		s, err := procfs.ReadStat(pid)
		if err != nil {
			return found
		}
		pid = s.PPID
		found = append(found, pid)
	}
	return found
}

package process

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

// Signal sends sig to the process and to no other, even if its PID has been reused. It returns ErrGone if the
// process is dead and reaped; a zombie accepts any signal.
func (p *Process) Signal(sig syscall.Signal) error {
	err := crashpoint.Do(crashpoint.Signal, func() error {
		return p.control(func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, 0) })
	})
	return p.signalError(sig, "", err)
}

// SignalGroup sends sig to the process group that the process leads, or to the process alone if it leads none.
// Since Linux 6.9 this reaches the rest of a group even if the leader has died. Older kernels can signal a group
// only by number; SignalGroup does so only while the leader is proven alive, and returns ErrGone afterwards.
func (p *Process) SignalGroup(sig syscall.Signal) error {
	err := crashpoint.Do(crashpoint.Signal, func() error {
		return p.control(func(fd int) error { return p.signalGroup(fd, sig) })
	})
	return p.signalError(sig, " group", err)
}

func (p *Process) signalGroup(fd int, sig syscall.Signal) error {
	err := error(unix.EINVAL)
	if !kernel.Withheld.GroupSignal.Load() {
		err = unix.PidfdSendSignal(fd, sig, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
	}
	switch {
	case errors.Is(err, unix.EINVAL):
		return p.signalGroupByNumber(fd, sig)
	case errors.Is(err, unix.ESRCH):
		return unix.PidfdSendSignal(fd, sig, nil, 0)
	}
	return err
}

// signalGroupByNumber is for kernels before 6.9. The number belongs to the group until its leader is reaped. A
// child of this process cannot be reaped while reaping is locked. The child of another parent would have to be
// reaped and its PID reused between two system calls, although the kernel assigns PIDs in turn.
func (p *Process) signalGroupByNumber(fd int, sig syscall.Signal) error {
	reaping.Lock()
	defer reaping.Unlock()
	group, err := unix.Getpgid(p.id.PID)
	switch {
	case pidfdEvents(fd)&unix.POLLIN != 0:
		return unix.ESRCH
	case err != nil:
		return err
	case group != p.id.PID:
		return unix.PidfdSendSignal(fd, sig, nil, 0)
	}
	return unix.Kill(-group, sig)
}

func (p *Process) signalError(sig syscall.Signal, what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ESRCH):
		err = ErrGone
	}
	return fmt.Errorf("send %s to process%s %d: %w", identity.SignalName(sig), what, p.id.PID, err)
}

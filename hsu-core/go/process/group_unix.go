//go:build unix

package process

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// ownGroup makes the process the leader of a new process group, whose number is its PID. As long as a process of
// the group lives, the kernel gives that number to no other process.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

func terminateGroup(leader *os.Process) error { return signalGroup(leader.Pid, syscall.SIGTERM) }

func killGroup(leader *os.Process) error { return signalGroup(leader.Pid, syscall.SIGKILL) }

// signalGroup signals all processes of the group; an empty group is not an error.
func signalGroup(group int, sig syscall.Signal) error {
	if err := syscall.Kill(-group, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// groupAlive reports whether any process of the group runs that this program may signal. The result is only useful
// after the leader has been reaped.
func groupAlive(group int) bool {
	return syscall.Kill(-group, 0) == nil && !onlyZombies(group)
}

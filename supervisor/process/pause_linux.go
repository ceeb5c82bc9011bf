package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/supervisor/cgroup"
)

// PauseProcess is a process that does nothing: it keeps a cgroup populated until a worker is in it. It is a start
// helper that is never told to execute a program, so it ends with its master, and it has no environment by which a scan
// could take it for a worker.
type PauseProcess struct {
	process *Process
	helper  *helper
}

// StartPauseProcess starts a pause process in the cgroup of this process.
func StartPauseProcess() (*PauseProcess, error) {
	p, err := startPauseProcess()
	if err != nil {
		return nil, fmt.Errorf("start a pause process: %w", err)
	}
	return p, nil
}

func startPauseProcess() (_ *PauseProcess, err error) {
	by, err := newHelper(Rights{})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = by.close()
		}
	}()
	path, argv, err := by.command(Spec{Path: "pause"})
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }() // the child has its own descriptor
	fd := -1
	files := []uintptr{null.Fd(), null.Fd(), null.Fd()}
	for len(files) < helperSocket {
		files = append(files, ^uintptr(0)) // none
	}
	pid, err := fork(Spec{}, path, argv, &syscall.ProcAttr{
		Dir: "/", Files: append(files, by.end.Fd()), Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &fd},
	})
	if err != nil {
		return nil, err
	}
	defer watched.remove(pid)
	process, err := adopt(pid, fd)
	if err != nil {
		return nil, err
	}
	return &PauseProcess{process, by}, by.released()
}

// PID returns the PID of the process. It is the process's own until Close.
func (p *PauseProcess) PID() int { return p.process.PID() }

// Alive reports whether the process has not ended.
func (p *PauseProcess) Alive() bool { return p.process.alive() }

// MoveTo moves the process to the cgroup with the folder.
func (p *PauseProcess) MoveTo(folder string) error {
	err := cgroup.Join(folder, p.PID())
	if err != nil {
		return fmt.Errorf("move the pause process to %s: %w", filepath.Base(folder), err)
	}
	return nil
}

// Close ends the process, and returns when it has ended.
func (p *PauseProcess) Close() error {
	_ = p.process.Signal(unix.SIGKILL) // the end of the socket ends it too
	err := p.helper.close()
	<-p.process.Done()
	return errors.Join(err, p.process.Close())
}

package handover

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Executable is the open file of a program, which is checked before it is executed.
type Executable struct {
	path   string
	file   *os.File
	state  fileState // when it was opened
	script bool
}

// fileState changes if another file is at a path, or if the content of a file changes.
type fileState struct {
	device   uint64
	inode    uint64
	size     int64
	modified unix.Timespec
	changed  unix.Timespec
}

func stateOf(st unix.Stat_t) fileState {
	return fileState{
		device: uint64(st.Dev), inode: st.Ino, //nolint:unconvert // it is needed on some architectures
		size: st.Size, modified: st.Mtim, changed: st.Ctim,
	}
}

// OpenExecutable opens the program at path. The caller must close it.
func OpenExecutable(path string) (*Executable, error) {
	f, err := openProgram(path)
	if err != nil {
		return nil, err
	}
	e := &Executable{path: path, file: f}
	state, err := e.now()
	if err == nil {
		e.state = state
		e.script, err = e.isScript()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return e, nil
}

// openProgram opens a file that this process may execute, and perhaps not read.
func openProgram(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil //nolint:gosec // it is not negative
}

// now returns the state of the open file.
func (e *Executable) now() (fileState, error) {
	fd, err := descriptor(e.file)
	if err != nil {
		return fileState{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fileState{}, &os.PathError{Op: "stat", Path: e.path, Err: err}
	}
	return stateOf(st), nil
}

// isScript reports whether the kernel runs the file by an interpreter that its first line names. Such a file can be
// read.
func (e *Executable) isScript() (bool, error) {
	path, err := PathOf(e.file)
	if err != nil {
		return false, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrPermission) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // it is only read
	start := make([]byte, 2)
	_, err = io.ReadFull(f, start)
	return err == nil && string(start) == "#!", nil
}

// ID returns the device and the inode of the file that a process has as its program when it executes this one. For a
// script, which an interpreter runs, it returns zeros.
func (e *Executable) ID() (device, inode uint64) {
	if e.script {
		return 0, 0
	}
	return e.state.device, e.state.inode
}

// File returns the open file. If the kernel runs it by an emulator, the next program needs it.
func (e *Executable) File() *os.File { return e.file }

// Path returns a path at which this very file can be executed, and an error if its content has changed since it was
// opened. A script is executed at its own path, because it can depend on that. So Path returns an error if another file
// is there.
func (e *Executable) Path() (string, error) {
	if !e.script {
		now, err := e.now()
		if err == nil && (now.size != e.state.size || now.modified != e.state.modified) {
			err = fmt.Errorf("%s has changed since its check", e.path)
		}
		if err != nil {
			return "", err
		}
		return PathOf(e.file)
	}
	var st unix.Stat_t
	if err := unix.Stat(e.path, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: e.path, Err: err}
	}
	if stateOf(st) != e.state {
		return "", fmt.Errorf("%s has changed since its check", e.path)
	}
	return e.path, nil
}

// Close closes the file. It may be called on nil.
func (e *Executable) Close() error {
	if e == nil {
		return nil
	}
	return e.file.Close()
}

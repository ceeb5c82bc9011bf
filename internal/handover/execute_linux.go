package handover

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/safefile"
)

// Supported reports whether the program of a process can be replaced on this operating system.
const Supported = true

func closeOnExec(fd int) { unix.CloseOnExec(fd) }

// Execute replaces the program of this process. The next one gets the files and the facts from [Take]. Execute returns
// only if it fails, and then nothing has changed.
func Execute(p Program, files map[string]*os.File, facts any) error {
	encoded, err := json.Marshal(facts)
	if err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	m := manifest{PID: os.Getpid(), ID: rand.Text(), Files: map[string]int{}, Facts: encoded}
	for name, f := range files {
		if m.Files[name], err = descriptor(f); err != nil {
			return fmt.Errorf("hand over the descriptor %s: %w", name, err)
		}
	}
	list, err := writeManifest(m)
	if err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	defer func() { _ = unix.Close(list) }() // only if Execute fails
	// No child may be forked while the descriptors are not close-on-exec.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	passed := []int{list}
	for _, fd := range m.Files {
		passed = append(passed, fd)
	}
	err = keepOnExec(passed)
	if err == nil {
		defer blockUSR1()()
		err = syscall.Exec(p.Path, p.Args, p.environ(m, list))
	}
	for _, fd := range passed {
		unix.CloseOnExec(fd)
	}
	runtime.KeepAlive(files)
	return fmt.Errorf("execute %s: %w", p.Path, err)
}

// blockUSR1 blocks USR1 on the thread of the calling goroutine, which the goroutine does not leave until it calls the
// returned function. After execve, USR1 waits until the next program receives it by package signal. The runtime of Go
// unblocks signals that are meant to end a process, such as TERM.
func blockUSR1() (restore func()) {
	var mask, before unix.Sigset_t
	mask.Val[0] |= 1 << (unix.SIGUSR1 - 1)
	runtime.LockOSThread()
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, &mask, &before) // never fails
	return func() {
		_ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil) // never fails
		runtime.UnlockOSThread()
	}
}

func keepOnExec(fds []int) error {
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil { //nolint:gosec // it is not negative
			return err
		}
	}
	return nil
}

// descriptor returns the number of the file's descriptor. File.Fd would set it to blocking mode.
func descriptor(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = raw.Control(func(number uintptr) { fd = int(number) }) //nolint:gosec // it fits
	return fd, err
}

// writeManifest returns the descriptor of an anonymous file with the manifest.
func writeManifest(m manifest) (int, error) {
	content, err := json.Marshal(m)
	if err != nil {
		return -1, err
	}
	return safefile.Memory("hsu-handover", content)
}

// Self opens the file that this process executes. It remains that file when its path is replaced.
func Self() (*os.File, error) { return openProgram("/proc/self/exe") }

// PathOf returns a path at which an open file can be executed in this process.
func PathOf(f *os.File) (string, error) {
	fd, err := descriptor(f)
	return fmt.Sprintf("/proc/self/fd/%d", fd), err
}

// SetName sets the name of this process, as ps shows it. A program that was executed by descriptor has the number as
// its name.
func SetName(name string) {
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0) // the name is for people only
}

// Duplicate returns a duplicate of the file.
func Duplicate(f *os.File) (*os.File, error) {
	fd, err := descriptor(f)
	if err == nil {
		fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) //nolint:gosec // it is not negative
	}
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil //nolint:gosec // it is not negative
}

package process

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ShedInherited keeps what this process has inherited from its parent away from the workers. It sets close-on-exec
// on the descriptors, and installs a handler that does nothing for each ignored signal (nohup, for instance,
// ignores some). After exec a handled signal has its default disposition again, while an ignored one stays
// ignored. Call it once, before the first Start.
func ShedInherited() error {
	if err := closeOnExec(); err != nil {
		return fmt.Errorf("close what was inherited in workers: %w", err)
	}
	ignored, err := ignoredSignals()
	if err != nil {
		return fmt.Errorf("find signals that are ignored: %w", err)
	}
	if len(ignored) > 0 {
		signal.Notify(make(chan os.Signal, 1), ignored...)
	}
	return nil
}

// closeOnExec sets close-on-exec on all descriptors except the standard ones.
func closeOnExec() error {
	const first = 3
	err := unix.CloseRange(first, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
		return err
	}
	// Linux before 5.11, or a seccomp filter that does not know the call.
	entries, err := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n >= first {
			unix.CloseOnExec(n)
		}
	}
	return err
}

// ignoredSignals returns the signals that this process has inherited as ignored, except the two that the terminal
// sends to a background process: with a handler this process could not write to the terminal, and workers have no
// terminal.
func ignoredSignals() (ignored []os.Signal, err error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(text), "\nSigIgn:")
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err != nil {
		return nil, err
	}
	for n := range 64 {
		switch sig := syscall.Signal(n + 1); {
		case mask>>n&1 == 0, sig == unix.SIGTTIN, sig == unix.SIGTTOU:
		default:
			ignored = append(ignored, sig)
		}
	}
	return ignored, nil
}

// withoutMask calls fork on a thread that blocks no signal. A child inherits the signal mask of the thread that
// forks, and this process may have inherited a mask that blocks some.
func withoutMask(fork func() (int, error)) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var none, before unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &none, &before); err != nil {
		return 0, fmt.Errorf("unblock signals: %w", err)
	}
	defer func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil) }() // never fails
	return fork()
}

//go:build e2e && linux

package harness

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mountsEnv marks a process that has its own mounts already.
const mountsEnv = "HSU_E2E_MOUNTS"

// ownMounts gives this process a private mount namespace, so that the tests' mounts end with the last process of
// the tests, however it ends. A namespace belongs to a thread, so the program executes itself again from the thread
// that has the namespace. Without the necessary rights it continues, without the tests that mount.
func ownMounts() error {
	if os.Getenv(mountsEnv) != "" {
		return nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	if err := os.Setenv(mountsEnv, "own"); err != nil {
		return err
	}
	return fmt.Errorf("start anew: %w", unix.Exec("/proc/self/exe", os.Args, os.Environ()))
}

// unmountBelow unmounts everything below dir, in use or not.
func unmountBelow(dir string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	for _, line := range slices.Backward(strings.Split(string(text), "\n")) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			errs = append(errs, unix.Unmount(fields[4], unix.MNT_DETACH))
		}
	}
	return errors.Join(errs...)
}

// CanMount reports whether tests can mount file systems, which only root can. The mounts are private to the tests.
func CanMount() bool { return os.Getenv(mountsEnv) != "" }

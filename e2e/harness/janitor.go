//go:build e2e && linux

package harness

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// The janitor is a process that cleans up after the tests' process, however it ended: masters and workers are made
// to outlive their parent.
const janitorEnv = "HSU_E2E_JANITOR"

// HireJanitor starts a process that kills all processes that use files below dir, and removes dir, after this process
// has ended, however it ends. The returned function has it done now, and waits for that. Main hires one for
// Programs.Dir.
func HireJanitor(dir string) (dismiss func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), janitorEnv+"="+dir)
	cmd.Stderr = os.Stderr
	// Not in the terminal's group: a signal that ends the tests must not end it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	}, nil
}

// clean waits until the tests' process closes standard input, at the latest by its end, and removes its leftovers.
func clean(dir string) {
	_, _ = io.Copy(io.Discard, os.Stdin)
	KillAll(func() []Process { return ProcessesBelow(dir, "") })
	if err := errors.Join(unmountBelow(dir), os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	}
}

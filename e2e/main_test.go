//go:build e2e && linux

package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Programs under test, built once.
var programs struct {
	dir     string // holds all of the below, and the tests' own folders
	master  string
	crasher string // the master with crash points compiled in
	worker  string
	unit    string // testdata/unit, the worker with bad habits
}

// release are the build flags of the Makefile that change what is built.
var release = []string{"-trimpath", "-tags", "grpcnotrace"}

func TestMain(m *testing.M) {
	if dir := os.Getenv(janitorEnv); dir != "" {
		clean(dir)
		os.Exit(0)
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	// A short path: it becomes part of a socket's, which has 107 bytes.
	dir, err := os.MkdirTemp("", "hsu-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	programs.dir = dir
	if os.Getenv("HSU_E2E_UNREAPED") != "" {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
	}
	dismiss, err := hireJanitor(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer dismiss()
	for _, p := range []struct {
		path  *string
		name  string
		flags []string
		pkg   string
	}{
		{&programs.master, "hsu-master", release, "./cmd/hsu-master"},
		{&programs.crasher, "hsu-master-crashpoints", []string{"-tags", "crashpoints"}, "./cmd/hsu-master"},
		{&programs.worker, "hsu-worker", release, "./cmd/hsu-worker"},
		{&programs.unit, "unit", nil, "./e2e/testdata/unit"},
	} {
		*p.path = filepath.Join(dir, p.name)
		if err := build("..", *p.path, p.pkg, p.flags...); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
	}
	return m.Run()
}

// build builds the package pkg of the module in dir.
func build(dir, path, pkg string, flags ...string) error {
	args := append([]string{"build", "-o", path}, strings.Fields(os.Getenv("HSU_E2E_BUILD_FLAGS"))...)
	cmd := exec.Command("go", append(append(args, flags...), pkg)...)
	cmd.Dir = dir
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, output)
	}
	return nil
}

// The janitor is a process that cleans up when the tests' process is gone, however
// it ended: masters and workers are made to outlive their parent.
const janitorEnv = "HSU_E2E_JANITOR"

// hireJanitor starts it; the function that it returns ends the tests for it, and
// waits until everything is clean.
func hireJanitor(dir string) (dismiss func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), janitorEnv+"="+dir)
	cmd.Stderr = os.Stderr
	// Not in the terminal's group: what ends the tests must not end it.
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

// clean waits for the tests' process to close standard input, by its end at the
// latest, and removes what is left of it.
func clean(dir string) {
	_, _ = io.Copy(io.Discard, os.Stdin)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		left := 0
		for _, pid := range pids() {
			if pid == os.Getpid() {
				continue
			}
			if f, ok := look(pid, dir, "-"); ok {
				left++
				f.kill()
			}
		}
		if left == 0 {
			break
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	}
}

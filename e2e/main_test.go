//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Programs under test, built once.
var programs struct {
	dir     string // holds all programs below, and the tests' own folders
	master  string // with crash points, and a check for leaks at its end
	crasher string // the same
	release string // the release build
	worker  string
	unit    string // testdata/unit, the worker with bad habits
}

// The build tags of the Makefile, and those of a master under test.
const (
	releaseTags = "grpcnotrace,urfave_cli_no_docs"
	testTags    = releaseTags + ",crashpoints"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(janitorEnv); dir != "" {
		clean(dir)
		os.Exit(0)
	}
	if err := ownMounts(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	// A short path: it becomes part of a socket's path, which has at most 107 bytes.
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
		path            *string
		name, tags, pkg string
	}{
		{&programs.master, "hsu-master", testTags, "./cmd/hsu-master"},
		{&programs.release, "hsu-master-release", releaseTags, "./cmd/hsu-master"},
		{&programs.worker, "hsu-worker", releaseTags, "./cmd/hsu-worker"},
		{&programs.unit, "unit", "", "./e2e/testdata/unit"},
	} {
		*p.path = filepath.Join(dir, p.name)
		if err := build("..", *p.path, p.pkg, p.tags); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
	}
	programs.crasher = programs.master
	return m.Run()
}

// build builds the package pkg of the module in dir, as the Makefile does except for the tags.
func build(dir, path, pkg, tags string) error {
	more := strings.Fields(os.Getenv("HSU_E2E_BUILD_FLAGS"))
	args := append([]string{"build", "-o", path, "-trimpath", "-buildvcs=false", "-tags", tags}, more...)
	cmd := exec.Command("go", append(args, pkg)...)
	cmd.Dir = dir
	if !slices.Contains(more, "-race") { // which needs cgo
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, output)
	}
	return nil
}

// writeProgram writes an executable file. A process that is being forked meanwhile would keep the file open for
// writing until it executes its program, and so long the kernel does not execute the file.
func writeProgram(path string, content []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, content, 0o700)
}

// The janitor is a process that cleans up after the tests' process, however it ended: masters and workers are made
// to outlive their parent.
const janitorEnv = "HSU_E2E_JANITOR"

// hireJanitor starts it. The returned function tells the janitor that the tests are over, and waits until
// everything is clean.
func hireJanitor(dir string) (dismiss func(), err error) {
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
	if err := errors.Join(unmountBelow(dir), os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	}
}

//go:build e2e && linux

package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Programs are the paths of the programs under test. Main builds them before the first test.
var Programs struct {
	Dir     string // holds all programs below, and the tests' own folders
	Master  string // with crash points, and a check for leaks at its end
	Release string // the release build of the master
	Worker  string // the release build of the reference worker
	Unit    string // e2e/testdata/unit, the worker with bad habits
}

// Repository is the root of the repository, relative to the folder of a suite, in which its tests run.
const Repository = "../.."

// ReleaseTags are the build tags of the Makefile. A master under test has crash points besides.
const (
	ReleaseTags = "grpcnotrace,urfave_cli_no_docs"
	testTags    = ReleaseTags + ",crashpoints"
)

// Main is the TestMain of each suite. It builds the programs, runs the tests, kills the processes that are left,
// removes all files, and exits.
func Main(m *testing.M) {
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
	if os.Getenv("HSU_E2E_UNREAPED") != "" {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
	}
	dismiss, err := HireJanitor(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer dismiss()
	if err := buildPrograms(dir); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return m.Run()
}

func buildPrograms(dir string) error {
	released := filepath.Join(dir, "release")
	tested := make(chan error, 1)
	go func() { tested <- Build(Repository, dir+"/", testTags, "./cmd/hsu-master") }()
	err := Build(Repository, released+"/", ReleaseTags, "./cmd/hsu-master", "./cmd/hsu-worker", "./e2e/testdata/unit")
	Programs.Dir = dir
	Programs.Master = filepath.Join(dir, "hsu-master")
	Programs.Release = filepath.Join(released, "hsu-master")
	Programs.Worker = filepath.Join(released, "hsu-worker")
	Programs.Unit = filepath.Join(released, "unit")
	return errors.Join(err, <-tested)
}

// Build builds packages of the module in dir, as the Makefile does except for the tags. The output is a file, or a
// folder if it ends in a slash. HSU_E2E_BUILD_FLAGS are passed to go build.
func Build(dir, output, tags string, packages ...string) error {
	more := strings.Fields(os.Getenv("HSU_E2E_BUILD_FLAGS"))
	args := append([]string{"build", "-o", output, "-trimpath", "-buildvcs=false", "-tags", tags}, more...)
	cmd := exec.Command("go", append(args, packages...)...)
	cmd.Dir = dir
	if !slices.Contains(more, "-race") { // which needs cgo
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", packages, err, text)
	}
	return nil
}

// BuildMaster builds a master like Programs.Master that has another version.
func BuildMaster(output, version string) error {
	return Build(Repository, output, testTags, "-ldflags=-X main.release="+version, "./cmd/hsu-master")
}

// WriteProgram writes an executable file. A process that is being forked meanwhile would keep the file open for
// writing until it executes its program, and so long the kernel does not execute the file.
func WriteProgram(path string, content []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, content, 0o700)
}

// WriteText writes a file, which is executable if it is a script, and makes the folders above it.
func WriteText(t *testing.T, path, content string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	switch {
	case err != nil:
	case strings.HasPrefix(content, "#!"):
		err = WriteProgram(path, []byte(content))
	default:
		err = os.WriteFile(path, []byte(content), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

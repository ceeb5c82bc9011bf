//go:build e2e && linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	// A short path: it becomes part of a socket's, which has 107 bytes.
	dir, err := os.MkdirTemp("", "hsu-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	programs.dir = dir
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

//go:build e2e && linux

package harness

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"testing"
	"time"
)

// SkipOutsideCI skips a test that needs a feature that a machine may lack, and fails it in CI, where all tests run.
func SkipOutsideCI(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// NeedDebian skips the test if a program of a Debian package does not run, and fails it in CI, which installs the
// package.
func NeedDebian(t *testing.T, pkg string, command ...string) {
	t.Helper()
	output, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err == nil {
		return
	}
	SkipOutsideCI(t, "needs Debian's %s: %q: %v %s", pkg, command, err, bytes.TrimSpace(output))
}

// Output runs a command, with a time limit, and returns its standard output and error.
func Output(t *testing.T, path string, args ...string) (output string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

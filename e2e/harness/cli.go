//go:build e2e && linux

package harness

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
)

// Result is the result of a short command.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// CLI runs a command of hsu-master on this host's folders.
func (h *Host) CLI(args ...string) Result {
	h.T.Helper()
	args = append(args, "--state-dir", h.State)
	ctx, cancel := context.WithTimeout(h.T.Context(), Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, Programs.Master, args...)
	cmd.Env = CleanEnviron()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		h.T.Fatalf("hsu-master %q: %v", args, err)
	}
	if Leaked(stderr.String()) {
		h.T.Errorf("hsu-master %q: %s", args, &stderr)
	}
	return Result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

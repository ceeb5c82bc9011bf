//go:build inside

package inside

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// down and detach leave a service as it is, and the commands that they name have the effect that was asked for.
func TestDownAndDetachNameTheCommandOfSystemd(t *testing.T) {
	before := install(t)
	for verb, hint := range map[string]string{
		"down":   `"systemctl stop hsu-master.service"`,
		"detach": `"systemctl kill --kill-whom=main --signal=USR1 hsu-master.service"`,
	} {
		output, err := exec.Command(master, verb).CombinedOutput()
		exit, failed := errors.AsType[*exec.ExitError](err)
		if !failed || exit.ExitCode() != 1 || !strings.Contains(string(output), hint) {
			t.Errorf("%s: %v, want exit code 1 and %s:\n%s", verb, err, hint, output)
		}
	}
	if now := ready(t, 0); now.MasterPID != before.MasterPID {
		t.Errorf("the master is %d, and was %d", now.MasterPID, before.MasterPID)
	}

	command(t, "systemctl", "kill", "--kill-whom=main", "--signal=USR1", service)
	wantSame(t, "a detach", before, ready(t, before.MasterPID))
	command(t, "systemctl", "stop", socket, service)
	if left := ours(t); len(left) > 0 {
		t.Errorf("processes are left: %q", left)
	}
}

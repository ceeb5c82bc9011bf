package process

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// Root may read everything, so these cases need another user: the files in /proc of dead and undumpable processes
// belong to root.
func TestAsAnotherUser(t *testing.T) {
	needRoot(t)
	tests := []string{
		"TestExitOfAdoptedProcess", "TestKillLeavesNobody", "TestOpenProvesIdentity", "TestOpenWhatBecameUnclear",
		"TestOwnsPortWithStrangers", "TestScanSees", "TestScanTellsWhatTheEnvironmentSays", "TestStopped",
	}
	cmd := exec.Command(program, "-test.run=^("+strings.Join(tests, "|")+")$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if os.Getenv("GOCOVERDIR") != "" {
		t.Skip("another user cannot write the coverage")
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, name := range tests {
		if !strings.Contains(string(out), "--- PASS: "+name+" ") {
			t.Errorf("%s did not pass", name)
		}
	}
}

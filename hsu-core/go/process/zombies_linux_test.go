package process

import (
	"os/exec"
	"testing"
	"time"
)

// A zombie that its parent does not reap never goes away: Stop must not wait for it.
func TestGroupOfZombiesIsNotAlive(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "exec sleep 60")
	ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !groupAlive(cmd.Process.Pid) {
		t.Error("group of a running process is not alive")
	}
	if err := killGroup(cmd.Process); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for groupAlive(cmd.Process.Pid) { // until it is a zombie: it is not reaped here
		if time.Now().After(deadline) {
			t.Error("group of a zombie is alive")
			break
		}
	}
	_ = cmd.Wait() // killed, as intended
	if groupAlive(cmd.Process.Pid) {
		t.Error("group of a reaped process is alive")
	}
}

package process

import (
	"os/exec"
	"testing"
	"time"
)

// A zombie whose parent does not reap it is as gone as it gets: Stop must not wait for it.
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
	for groupAlive(cmd.Process.Pid) { // until it is a zombie: nobody waits for it here
		if time.Now().After(deadline) {
			t.Error("group of a zombie is alive")
			break
		}
	}
	_ = cmd.Wait() // killed, as it was meant to be
	if groupAlive(cmd.Process.Pid) {
		t.Error("group of a reaped process is alive")
	}
}

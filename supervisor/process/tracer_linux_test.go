package process

import (
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

func TestTracerOf(t *testing.T) {
	runtime.LockOSThread() // the thread that starts a traced process is its tracer
	defer runtime.UnlockOSThread()
	for _, traced := range []bool{false, true} {
		cmd := exec.Command("/bin/sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: traced, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		want := 0
		if traced {
			want = syscall.Gettid()
		}
		if got := TracerOf(cmd.Process.Pid); got != want {
			t.Errorf("traced %v: tracer %d, want %d", traced, got, want)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

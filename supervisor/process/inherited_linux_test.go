package process

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/procfs"
)

// The program under test must not change its mask: Go does, and so do some shells.
func TestStartedProcessBlocksNoSignal(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	blocked := unix.Sigset_t{}
	for _, sig := range []unix.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGALRM, unix.SIGWINCH} {
		blocked.Val[0] |= 1 << (sig - 1)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &blocked, nil); err != nil {
		t.Fatal(err)
	}
	p, err := Start(Spec{Path: sleep, Args: []string{"60"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = p.Signal(unix.SIGKILL)
		waitDone(t, p)
		_ = p.Close()
	}()
	var after unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &after); err != nil ||
		after.Val[0]&blocked.Val[0] != blocked.Val[0] {
		t.Errorf("this thread blocks %#x afterwards, %v, want what it blocked before", after.Val[0], err)
	}
	status, err := os.ReadFile(procfs.Path(p.PID(), "status"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "SigBlk:")
	if got := strings.Fields(rest)[0]; strings.Trim(got, "0") != "" {
		t.Errorf("the process blocks signals %s, want none", got)
	}
}

// Package strays finds the processes that tests leave behind.
package strays

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/leaks"
	"github.com/core-tools/hsu-master/internal/procfs"
)

// patience bounds the wait for processes that were killed. On a busy machine they may take some time to die.
const patience = 30 * time.Second

// Run runs the tests, and fails if one leaves a process behind: as a subreaper, this process becomes the parent of all
// orphans.
func Run(m interface{ Run() int }, stderr io.Writer) int {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		_, _ = fmt.Fprintln(stderr, "subreaper:", err)
		return 1
	}
	code := leaks.Run(m, stderr)
	for deadline := time.Now().Add(patience); ; {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR || err == nil && pid > 0: // a zombie
			continue
		case err == unix.ECHILD:
			return code
		case time.Now().Before(deadline):
			time.Sleep(time.Millisecond)
			continue
		}
		_, _ = fmt.Fprintln(stderr, "FAIL: processes were left behind:")
		stats := make(map[int]procfs.Stat)
		buf := make([]byte, 1<<16)
		pids, _ := procfs.Numbers("/proc", &buf)
		for _, pid := range pids {
			if s, err := procfs.ReadStat(pid); err == nil {
				stats[pid] = s
			}
		}
		for pid, s := range stats {
			if s.PPID == os.Getpid() && !s.Ended() {
				command, _ := os.ReadFile(procfs.Path(pid, "cmdline"))
				_, _ = fmt.Fprintf(stderr, "\t%d %q\n", pid, command)
				_ = unix.Kill(pid, unix.SIGKILL) // a child of this process
			}
		}
		return 1
	}
}

package process

import (
	"context"
	"os"
	"strconv"
	"strings"

	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/process/sockets"
)

// PortHolder returns the PID and the name of a process that listens on a TCP port of this host. It returns false
// if it finds none: only root can read the descriptors of another user's processes.
func PortHolder(port int) (pid int, name string, found bool) {
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	ctx, cancel := context.WithTimeout(context.Background(), ownerPatience)
	defer cancel()
	listeners, err := sockets.Listeners(ctx, port)
	if err != nil || len(listeners) == 0 {
		return 0, "", false
	}
	processes, err := procfs.Numbers("/proc", buf)
	if err != nil {
		return 0, "", false
	}
	s := newOwnerSearch(listeners, buf)
	for _, pid := range processes {
		if ctx.Err() != nil {
			break
		}
		if s.look(pid); len(s.missing) < len(listeners) {
			comm, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm") // empty if the process has just ended
			return pid, strings.TrimSuffix(string(comm), "\n"), true
		}
	}
	return 0, "", false
}

package process

import (
	"context"
	"os"
	"strconv"
	"strings"
)

// PortHolder returns the PID and the name of a process that listens on a TCP port of this host. It returns false
// if it finds none: only root can read the descriptors of another user's processes.
func PortHolder(port int) (pid int, name string, found bool) {
	buf := getBuffer()
	defer putBuffer(buf)
	ctx, cancel := context.WithTimeout(context.Background(), ownerPatience)
	defer cancel()
	listeners, err := listenersOn(ctx, port, buf)
	if err != nil || len(listeners) == 0 {
		return 0, "", false
	}
	processes, err := numbers("/proc", buf)
	if err != nil {
		return 0, "", false
	}
	s := ownerSearch{missing: make(map[string]socket, len(listeners)), buf: buf}
	for _, l := range listeners {
		s.missing[socketLink(l.inode)] = l
	}
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

package process

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/process/sockets"
)

// ownerSearch looks for the sockets that have no known owner yet.
type ownerSearch struct {
	missing map[string]sockets.Socket // by their link text in /proc/PID/fd
	denied  []uint32                  // uids of members whose descriptors cannot be read
	buf     *[]byte
}

func newOwnerSearch(wanted []sockets.Socket, buf *[]byte) *ownerSearch {
	s := &ownerSearch{missing: make(map[string]sockets.Socket, len(wanted)), buf: buf}
	for _, w := range wanted {
		s.missing[w.Link()] = w
	}
	return s
}

// has reports whether a process that has the socket open was found.
func (s *ownerSearch) has(found sockets.Socket) bool {
	_, missing := s.missing[found.Link()]
	return !missing
}

// look removes the sockets that pid has open from missing.
func (s *ownerSearch) look(pid int) {
	folder, open, err := procfs.Descriptors(pid, s.buf)
	if procfs.Denied(err) {
		s.deny(folder)
	}
	// Check inherited descriptors last: a program rarely listens on those.
	const inherited = 3
	at := sort.SearchInts(open, inherited)
	for _, n := range slices.Concat(open[at:], open[:at]) {
		if len(s.missing) == 0 {
			return
		}
		if err := s.compare(folder, n); procfs.Denied(err) {
			s.deny(folder)
			return
		}
	}
}

// deny notes that the descriptors of a member cannot be read.
func (s *ownerSearch) deny(folder string) {
	var st unix.Stat_t
	if unix.Stat(folder, &st) == nil {
		s.denied = append(s.denied, st.Uid)
	}
}

// compare removes the socket behind the descriptor, if it is one, from missing. Root without CAP_SYS_PTRACE may
// list the descriptors of every process of root, but read only those of processes that are dumpable and have no
// more capabilities than it has.
func (s *ownerSearch) compare(folder string, n int) error {
	var link [64]byte
	length, err := unix.Readlink(folder+"/fd/"+strconv.Itoa(n), link[:])
	if err == nil {
		delete(s.missing, string(link[:length]))
	}
	return err
}

func (s *ownerSearch) allRemain(again []sockets.Socket) bool {
	remain := 0
	for _, l := range again {
		if !s.has(l) {
			remain++
		}
	}
	return remain == len(s.missing)
}

// verdict decides about sockets that no readable member has. An unreadable member may own them only if its user,
// or root before the member changed its UID, made them.
func (s *ownerSearch) verdict() Ownership {
	if len(s.denied) == 0 {
		return PortForeign
	}
	for _, l := range s.missing {
		possible := l.UID == 0
		for _, uid := range s.denied {
			possible = possible || uid == l.UID
		}
		if !possible {
			return PortForeign
		}
	}
	return PortUnknown
}

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

// PortHidden reports whether a TCP port has a listener that cannot be seen from here: one of a process in another
// PID namespace, or of a process whose descriptors this process may not read.
func PortHidden(ctx context.Context, port int) (bool, error) {
	hidden, err := portHidden(ctx, port)
	if err != nil {
		return false, fmt.Errorf("look for listeners on port %d: %w", port, err)
	}
	return hidden, nil
}

func portHidden(ctx context.Context, port int) (bool, error) {
	if port < 1 || port > 65535 {
		return false, fmt.Errorf("not a port: %w", os.ErrInvalid)
	}
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	listeners, err := sockets.Listeners(ctx, port)
	if err != nil || len(listeners) == 0 {
		return false, err
	}
	s := newOwnerSearch(listeners, buf)
	c, err := shared.Answer(ctx)
	if err != nil {
		return false, err
	}
	for _, pid := range append(c.users, os.Getpid()) {
		s.look(pid)
	}
	if len(s.missing) == 0 {
		return false, nil
	}
	// A listener that is gone by now does not count.
	again, err := sockets.Listeners(ctx, port)
	if err != nil {
		return false, err
	}
	for _, l := range again {
		if !s.has(l) {
			return true, nil
		}
	}
	return false, nil
}

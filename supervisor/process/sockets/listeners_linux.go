package sockets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/eintr"
	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/internal/sharing"
	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

// Socket is a TCP socket on a local port.
type Socket struct {
	Port  int
	Inode uint64
	UID   uint32 // of the process that made it, at that time
	// Loopback is set if it is known to be reached at 127.0.0.1: it is of IPv4, bound to that address or to all, and
	// not to an interface. One of IPv6 may be reached there too.
	Loopback bool
}

// Link returns the target of the link in /proc/PID/fd of a process that has the socket open.
func (s Socket) Link() string { return fmt.Sprintf("socket:[%d]", s.Inode) }

// Concurrent callers, such as a hundred workers in a recovery, share one reading: the cost is not in the result
// but in the kernel's walk through its table of listeners (measured: a tenth of a recovery).
var (
	asking       atomic.Int32
	allListeners = &sharing.Question[*listenerTable]{Ask: readListenerTable}
)

// listenerTable holds all listeners of this network namespace at one moment.
type listenerTable struct {
	on    map[int][]Socket // by port
	whole bool             // no listener can have been missed
}

func readListenerTable() (*listenerTable, error) {
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	found, parts, err := diagnose(anyPort, *buf)
	if err != nil {
		return nil, err
	}
	// If the answer has several parts, the kernel may skip listeners when others close in between.
	table := &listenerTable{on: make(map[int][]Socket, len(found)), whole: parts <= 1}
	for _, l := range found {
		table.on[l.Port] = append(table.on[l.Port], l)
	}
	return table, nil
}

// Listeners returns the TCP listeners on a port in this network namespace. The kernel's socket diagnosis walks
// through the listeners only. The fallback /proc/net/tcp needs no netlink, but also walks through the table of all
// connections, which takes milliseconds.
func Listeners(ctx context.Context, port int) ([]Socket, error) {
	defer asking.Add(-1)
	if asking.Add(1) > 1 || kernel.Withheld.PortQuery.Load() {
		if table, err := allListeners.Answer(ctx); err == nil && (table.whole || len(table.on[port]) > 0) {
			return table.on[port], nil
		}
	}
	return searchListeners(port)
}

// AllListeners returns all TCP listeners in this network namespace.
func AllListeners(ctx context.Context) ([]Socket, error) {
	if table, err := allListeners.Answer(ctx); err == nil && table.whole {
		return slices.Concat(slices.Collect(maps.Values(table.on))...), nil
	}
	return searchListeners(anyPort)
}

// Listening returns a function that tells whether a process listens on a TCP port of this network namespace, on any
// address, and whether a connect to 127.0.0.1 is known to reach it. It misses a listener only if others have just been
// closed. It fails if the kernel cannot be asked for all listeners at once.
func Listening() (listens func(port int) (somewhere, loopback bool), err error) {
	table, err := readListenerTable()
	if err != nil {
		return nil, fmt.Errorf("list the listeners: %w", err)
	}
	return func(port int) (somewhere, loopback bool) {
		on := table.on[port]
		return len(on) > 0, slices.ContainsFunc(on, func(s Socket) bool { return s.Loopback })
	}, nil
}

// searchListeners returns the listeners on a port, or on any one.
func searchListeners(port int) ([]Socket, error) {
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	found, _, err := diagnose(port, *buf)
	if err == nil {
		return found, nil
	}
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		rows, e := readListeners(name, port)
		if e != nil && !(name == "/proc/net/tcp6" && errors.Is(e, unix.ENOENT)) { // no IPv6
			return nil, fmt.Errorf("%w (and sock_diag: %w)", e, err)
		}
		if name == "/proc/net/tcp" {
			found = rows
		} else {
			found = append(found, rows...)
		}
	}
	return found, nil
}

// readListeners reads /proc/net/tcp or tcp6 in small pieces up to the first row that is not a listener: the
// listeners come first (proc(5)).
func readListeners(path string, port int) ([]Socket, error) {
	fd, err := eintr.Retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	var found []Socket
	buf, used, header := make([]byte, 4096), 0, true
	for {
		n, err := eintr.Retry(func() (int, error) { return unix.Read(fd, buf[used:]) })
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if n == 0 {
			return found, nil
		}
		rest := buf[:used+n]
		for {
			line, after, whole := bytes.Cut(rest, []byte("\n"))
			if !whole {
				break
			}
			rest = after
			if header {
				header = false
				continue
			}
			row, ok := parseSocketRow(line)
			if !ok {
				return nil, fmt.Errorf("read %s: not a row: %q", path, line)
			}
			if !row.listens {
				return found, nil
			}
			if port == anyPort || row.port == port {
				found = append(found, Socket{Port: row.port, Inode: row.inode, UID: row.uid})
			}
		}
		if used = copy(buf, rest); used == len(buf) {
			return nil, fmt.Errorf("read %s: a row of over %d bytes", path, used)
		}
	}
}

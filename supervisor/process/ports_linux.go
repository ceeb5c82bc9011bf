package process

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sort"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a TCP socket on a local port.
type socket struct {
	port  int
	inode uint64
	uid   uint32 // of the process that made it, at that time
}

// ownerPatience bounds the search for a port's owner. ownerTries is how often the search is tried if listeners
// come and go.
const (
	ownerPatience = 2 * time.Second
	ownerTries    = 3
)

// OwnsPort reports whose listeners a TCP port has, on any address of IPv4 and IPv6. It searches the leader's
// descriptors first, then those of the other members, because prefork servers listen in a child. PortUnknown means
// that the descriptors of a possible owner cannot be read.
func (f Family) OwnsPort(port int) (Ownership, error) {
	owner, err := f.ownsPort(port)
	if err != nil {
		return PortUnknown, fmt.Errorf("find the owner of port %d: %w", port, err)
	}
	return owner, nil
}

func (f Family) ownsPort(port int) (Ownership, error) {
	if port < 1 || port > 65535 {
		return PortUnknown, fmt.Errorf("not a port: %w", os.ErrInvalid)
	}
	buf := getBuffer()
	defer putBuffer(buf)
	ctx, cancel := context.WithTimeout(context.Background(), ownerPatience)
	defer cancel()
	return f.owns(ctx, buf, func() ([]socket, error) { return listenersOn(ctx, port, buf) })
}

// owns reports the owner of the sockets that find returns. The sockets may come and go meanwhile.
func (f Family) owns(ctx context.Context, buf *[]byte, find func() ([]socket, error)) (Ownership, error) {
	for try := 1; ; try++ {
		sockets, err := find()
		if err != nil {
			return PortUnknown, err
		}
		if len(sockets) == 0 {
			return PortFree, nil
		}
		s := ownerSearch{missing: make(map[string]socket, len(sockets)), buf: buf}
		for _, found := range sockets {
			s.missing[socketLink(found.inode)] = found
		}
		if f.leads(&s) {
			return PortOurs, nil
		}
		c, err := shared.get(ctx)
		if err != nil {
			return PortUnknown, err
		}
		for _, member := range f.find(c, f.leaseMayBeHeld()) {
			s.look(member.pid)
		}
		if len(s.missing) == 0 {
			return PortOurs, nil
		}
		// A socket that is gone by now may also have been the family's.
		again, err := find()
		if err != nil {
			return PortUnknown, err
		}
		if try < ownerTries && !s.allRemain(again) {
			continue
		}
		return s.verdict(), nil
	}
}

// leads searches the leader's descriptors only, and reports whether it has all the listeners. A leader known only
// by its PID has to be proven first.
func (f Family) leads(s *ownerSearch) bool {
	if f.Main != nil {
		s.look(f.Main.PID())
		return len(s.missing) == 0 && f.Main.alive()
	}
	if f.Leader < 1 {
		return false
	}
	fd, err := openPidfd(f.Leader)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if verifyToken(fd, f.Leader, f.Token) != nil {
		return false
	}
	s.look(f.Leader)
	return len(s.missing) == 0 && unreaped(fd)
}

// ownerSearch looks for the sockets that have no known owner yet.
type ownerSearch struct {
	missing map[string]socket // by their link text in /proc/PID/fd
	denied  []uint32          // uids of members whose descriptors cannot be read
	buf     *[]byte
}

// look removes the sockets that pid has open from missing.
func (s *ownerSearch) look(pid int) {
	folder, open, err := descriptors(pid, s.buf)
	if denied(err) {
		s.deny(folder)
	}
	// Check inherited descriptors last: a program rarely listens on those.
	const inherited = 3
	at := sort.SearchInts(open, inherited)
	for _, n := range slices.Concat(open[at:], open[:at]) {
		if len(s.missing) == 0 {
			return
		}
		if err := s.compare(folder, n); denied(err) {
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

func (s *ownerSearch) allRemain(sockets []socket) bool {
	found := 0
	for _, l := range sockets {
		if _, missing := s.missing[socketLink(l.inode)]; missing {
			found++
		}
	}
	return found == len(s.missing)
}

// verdict decides about sockets that no readable member has. An unreadable member may own them only if its user,
// or root before the member changed its UID, made them.
func (s *ownerSearch) verdict() Ownership {
	if len(s.denied) == 0 {
		return PortForeign
	}
	for _, l := range s.missing {
		possible := l.uid == 0
		for _, uid := range s.denied {
			possible = possible || uid == l.uid
		}
		if !possible {
			return PortForeign
		}
	}
	return PortUnknown
}

func socketLink(inode uint64) string { return fmt.Sprintf("socket:[%d]", inode) }

// Concurrent callers, such as a hundred workers in a recovery, share one reading: the cost is not in the result
// but in the kernel's walk through its table of listeners (measured: a tenth of a recovery).
var (
	asking       atomic.Int32
	allListeners = &sharing[*listenerTable]{ask: readListenerTable}
)

// listenerTable holds all listeners of this network namespace at one moment.
type listenerTable struct {
	on    map[int][]socket // by port
	whole bool             // no listener can have been missed
}

func readListenerTable() (*listenerTable, error) {
	buf := getBuffer()
	defer putBuffer(buf)
	found, parts, err := diagnose(anyPort, *buf)
	if err != nil {
		return nil, err
	}
	// If the answer has several parts, the kernel may skip listeners when others close in between.
	table := &listenerTable{on: make(map[int][]socket, len(found)), whole: parts <= 1}
	for _, l := range found {
		table.on[l.port] = append(table.on[l.port], l)
	}
	return table, nil
}

// listenersOn returns the TCP listeners on a port in this network namespace. The kernel's socket diagnosis walks
// through the listeners only. The fallback /proc/net/tcp needs no netlink, but also walks through the table of all
// connections, which takes milliseconds.
func listenersOn(ctx context.Context, port int, buf *[]byte) ([]socket, error) {
	defer asking.Add(-1)
	if asking.Add(1) > 1 {
		if table, err := allListeners.get(ctx); err == nil && (table.whole || len(table.on[port]) > 0) {
			return table.on[port], nil
		}
	}
	return searchListeners(port, buf)
}

// everyListener returns all TCP listeners in this network namespace.
func everyListener(ctx context.Context, buf *[]byte) ([]socket, error) {
	if table, err := allListeners.get(ctx); err == nil && table.whole {
		return slices.Concat(slices.Collect(maps.Values(table.on))...), nil
	}
	return searchListeners(anyPort, buf)
}

// searchListeners returns the listeners on a port, or on any one.
func searchListeners(port int, buf *[]byte) ([]socket, error) {
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
func readListeners(path string, port int) ([]socket, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	var found []socket
	buf, used, header := make([]byte, 4096), 0, true
	for {
		n, err := retry(func() (int, error) { return unix.Read(fd, buf[used:]) })
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
				found = append(found, socket{port: row.port, inode: row.inode, uid: row.uid})
			}
		}
		if used = copy(buf, rest); used == len(buf) {
			return nil, fmt.Errorf("read %s: a row of over %d bytes", path, used)
		}
	}
}

// From linux/sock_diag.h, linux/inet_diag.h and net/tcp_states.h.
const (
	sockDiagByFamily = 20
	tcpListen        = 10
	diagRequestSize  = 56
	diagAnswerSize   = 72
	diagPort         = 4 // in the answer: the local port, in network order
	diagUID          = 64
	diagInode        = 68
	netlinkHeader    = 16
)

// anyPort asks for the listeners of all ports.
const anyPort = 0

// diagnose asks the kernel for the listeners (sock_diag(7)). It also returns the number of parts of the answer,
// the larger one of IPv4 and IPv6.
func diagnose(port int, buf []byte) (found []socket, parts int, err error) {
	if withheld.sockDiag.Load() {
		return nil, 0, errors.ErrUnsupported
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, 0, fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		rows, n, err := diagnoseFamily(fd, family, port, buf)
		if err != nil {
			return nil, 0, err
		}
		found, parts = append(found, rows...), max(parts, n)
	}
	return found, parts, nil
}

// newDiagRequest returns a request for TCP sockets of an address family. The family is also the sequence number,
// which the answers repeat.
func newDiagRequest(family byte, flags uint16) (request [netlinkHeader + diagRequestSize]byte) {
	order := binary.NativeEndian
	order.PutUint32(request[0:], uint32(len(request)))
	order.PutUint16(request[4:], sockDiagByFamily)
	order.PutUint16(request[6:], unix.NLM_F_REQUEST|flags)
	order.PutUint32(request[8:], uint32(family))
	request[netlinkHeader], request[netlinkHeader+1] = family, unix.IPPROTO_TCP
	return request
}

func diagnoseFamily(fd int, family byte, port int, buf []byte) (found []socket, parts int, err error) {
	request := newDiagRequest(family, unix.NLM_F_DUMP)
	body := request[netlinkHeader:]
	binary.NativeEndian.PutUint32(body[4:], 1<<tcpListen)
	binary.BigEndian.PutUint16(body[8:], uint16(port))
	if err := unix.Sendto(fd, request[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, 0, fmt.Errorf("send: %w", err)
	}
	for {
		n, err := retry(func() (int, error) {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			return n, err
		})
		if err != nil {
			return nil, 0, fmt.Errorf("receive: %w", err)
		}
		rows, done, err := parseDiagnosis(buf[:n], uint32(family), port)
		if err != nil {
			return nil, 0, err
		}
		if len(rows) > 0 {
			parts++
		}
		found = append(found, rows...)
		if done {
			return found, parts, nil
		}
	}
}

var errDiagnosis = errors.New("not an answer of sock_diag")

// parseDiagnosis reads one datagram of netlink messages. It returns true for done if the dump ends with it.
func parseDiagnosis(datagram []byte, sequence uint32, port int) (found []socket, done bool, err error) {
	order := binary.NativeEndian
	for len(datagram) > 0 {
		if len(datagram) < netlinkHeader {
			return nil, false, errDiagnosis
		}
		length := int(order.Uint32(datagram))
		if length < netlinkHeader || length > len(datagram) {
			return nil, false, errDiagnosis
		}
		body := datagram[netlinkHeader:length]
		kind, about := order.Uint16(datagram[4:]), order.Uint32(datagram[8:])
		datagram = datagram[min((length+3)&^3, len(datagram)):]
		switch {
		case about != sequence:
		case kind == unix.NLMSG_DONE:
			return found, true, nil
		case kind == unix.NLMSG_ERROR:
			if len(body) >= 4 {
				if errno := -int32(order.Uint32(body)); errno > 0 {
					return nil, false, unix.Errno(errno)
				}
			}
			return nil, false, errDiagnosis
		case kind == sockDiagByFamily:
			if len(body) < diagAnswerSize {
				return nil, false, errDiagnosis
			}
			// The kernel filters by state; a filter by port is not documented.
			on := int(binary.BigEndian.Uint16(body[diagPort:]))
			if (port == anyPort || on == port) && body[1] == tcpListen {
				found = append(found, socket{
					port: on, inode: uint64(order.Uint32(body[diagInode:])), uid: order.Uint32(body[diagUID:]),
				})
			}
		}
	}
	return found, false, nil
}

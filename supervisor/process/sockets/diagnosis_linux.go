package sockets

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/eintr"
	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

// From linux/sock_diag.h, linux/inet_diag.h and net/tcp_states.h.
const (
	sockDiagByFamily = 20
	tcpListen        = 10
	diagRequestSize  = 56
	diagAnswerSize   = 72
	diagPort         = 4 // in the answer: the local port, in network order
	diagAddress      = 8 // the local address, in network order
	diagInterface    = 40
	diagUID          = 64
	diagInode        = 68
	netlinkHeader    = 16
)

// anyPort asks for the listeners of all ports.
const anyPort = 0

// diagnose asks the kernel for the listeners (sock_diag(7)). It also returns the number of parts of the answer,
// the larger one of IPv4 and IPv6.
func diagnose(port int, buf []byte) (found []Socket, parts int, err error) {
	if kernel.Withheld.SockDiag.Load() {
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

func diagnoseFamily(fd int, family byte, port int, buf []byte) (found []Socket, parts int, err error) {
	request := newDiagRequest(family, unix.NLM_F_DUMP)
	body := request[netlinkHeader:]
	binary.NativeEndian.PutUint32(body[4:], 1<<tcpListen)
	binary.BigEndian.PutUint16(body[8:], uint16(port))
	if err := unix.Sendto(fd, request[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, 0, fmt.Errorf("send: %w", err)
	}
	for {
		n, err := eintr.Retry(func() (int, error) {
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

// onLoopback reports whether the answer is about a socket that [Socket.Loopback] describes.
func onLoopback(answer []byte) bool {
	const all, loopback = 0, 127<<24 | 1
	address := binary.BigEndian.Uint32(answer[diagAddress:])
	return answer[0] == unix.AF_INET && (address == all || address == loopback) &&
		binary.NativeEndian.Uint32(answer[diagInterface:]) == 0
}

var errDiagnosis = errors.New("not an answer of sock_diag")

// parseDiagnosis reads one datagram of netlink messages. It returns true for done if the dump ends with it.
func parseDiagnosis(datagram []byte, sequence uint32, port int) (found []Socket, done bool, err error) {
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
				found = append(found, Socket{
					Port: on, Inode: uint64(order.Uint32(body[diagInode:])), UID: order.Uint32(body[diagUID:]),
					Loopback: onLoopback(body),
				})
			}
		}
	}
	return found, false, nil
}

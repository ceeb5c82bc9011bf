package sockets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/eintr"
	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

// ErrGone is returned if there is no such socket any more.
var ErrGone = errors.New("the socket is gone")

// UserOf returns the UID of the local TCP socket that is bound to own and connected to other. For a loopback
// connection that is the user of the process at the other end; TCP has no SO_PEERCRED. It takes one request to
// sock_diag(7): 10 µs, regardless of the number of sockets. It returns ErrGone if no process holds the socket any
// more, because the kernel shows such a socket as root's.
func UserOf(own, other netip.AddrPort) (uint32, error) {
	s, err := Connected(own, other)
	switch {
	case err != nil:
		return 0, err
	case s.Inode == 0:
		return 0, ErrGone
	}
	return s.UID, nil
}

// Connection is a TCP socket that has a peer.
type Connection struct {
	Socket        // the inode is 0 before the socket is accepted, and when no process holds it any more
	State  byte   // of TCP
	Cgroup uint64 // ID of the cgroup in which it, or its listener, was made; 0 if the kernel does not report it
}

// Connected asks the kernel for the local TCP socket that is bound to own and connected to other. It returns
// ErrGone if there is none.
func Connected(own, other netip.AddrPort) (Connection, error) {
	if kernel.Withheld.SockDiag.Load() {
		return Connection{}, errors.ErrUnsupported
	}
	if kernel.Withheld.TCPDiag.Load() {
		return Connection{}, ErrGone
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return Connection{}, fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	request := socketQuestion(own, other)
	if err := unix.Sendto(fd, request[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return Connection{}, fmt.Errorf("send: %w", err)
	}
	var answer [1024]byte
	n, err := eintr.Retry(func() (int, error) {
		n, _, err := unix.Recvfrom(fd, answer[:], 0)
		return n, err
	})
	if err != nil {
		return Connection{}, fmt.Errorf("receive: %w", err)
	}
	return parseConnected(answer[:n], own.Port())
}

// socketQuestion returns a request for one connected socket: struct inet_diag_req_v2 without a cookie, and without
// NLM_F_DUMP, so that the kernel looks it up by hash.
func socketQuestion(own, other netip.AddrPort) [netlinkHeader + diagRequestSize]byte {
	// The kernel keeps an IPv6 socket that is connected to an IPv4 address in the IPv4 table.
	from, to := own.Addr().Unmap(), other.Addr().Unmap()
	family := byte(unix.AF_INET6)
	if from.Is4() {
		family = unix.AF_INET
	}
	request := newDiagRequest(family, 0)
	body := request[netlinkHeader:]
	binary.NativeEndian.PutUint32(body[4:], ^uint32(0)) // in any state
	id := body[8:]
	binary.BigEndian.PutUint16(id[0:], own.Port())
	binary.BigEndian.PutUint16(id[2:], other.Port())
	copy(id[4:20], from.AsSlice())
	copy(id[20:36], to.AsSlice())
	binary.NativeEndian.PutUint64(id[40:], ^uint64(0)) // INET_DIAG_NOCOOKIE
	return request
}

// parseConnected reads the answer: one message, or an error.
func parseConnected(datagram []byte, port uint16) (Connection, error) {
	order := binary.NativeEndian
	if len(datagram) < netlinkHeader+4 {
		return Connection{}, errDiagnosis
	}
	body := datagram[netlinkHeader:]
	switch kind := order.Uint16(datagram[4:]); {
	case kind == unix.NLMSG_ERROR:
		return Connection{}, diagnosisError(-int32(order.Uint32(body)))
	case kind != sockDiagByFamily || len(body) < diagAnswerSize:
		return Connection{}, errDiagnosis
	}
	switch binary.BigEndian.Uint16(body[diagPort:]) {
	case port:
	case 0: // the socket was found, and lost its port (inet_put_port) before the kernel wrote the answer
		return Connection{}, ErrGone
	default:
		return Connection{}, errDiagnosis
	}
	if body[1] == tcpListen { // the kernel returns the listener on own if there is no connected socket
		return Connection{}, ErrGone
	}
	s := Socket{Port: int(port), Inode: uint64(order.Uint32(body[diagInode:])), UID: order.Uint32(body[diagUID:])}
	return Connection{Socket: s, State: body[1], Cgroup: cgroupID(body[diagAnswerSize:])}, nil
}

// From linux/inet_diag.h and linux/netlink.h.
const (
	diagCgroupID    = 21 // an attribute after the answer (Linux 5.9)
	attributeHeader = 4
)

// cgroupID returns the value of INET_DIAG_CGROUP_ID among attributes, or 0 if it is missing.
func cgroupID(attributes []byte) uint64 {
	order := binary.NativeEndian
	for len(attributes) >= attributeHeader {
		n := int(order.Uint16(attributes))
		if n < attributeHeader || n > len(attributes) {
			return 0
		}
		if order.Uint16(attributes[2:]) == diagCgroupID && n == attributeHeader+8 {
			return order.Uint64(attributes[attributeHeader:])
		}
		attributes = attributes[min((n+3)&^3, len(attributes)):]
	}
	return 0
}

func diagnosisError(errno int32) error {
	switch {
	case errno <= 0:
		return errDiagnosis
	case unix.Errno(errno) == unix.ENOENT:
		return ErrGone
	}
	return unix.Errno(errno)
}

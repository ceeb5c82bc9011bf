package sockets

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// diagnosis builds a datagram of netlink messages; the last message ends a dump.
func diagnosis(port int, inodes ...uint32) []byte {
	order := binary.NativeEndian
	var datagram []byte
	for _, inode := range inodes {
		message := make([]byte, netlinkHeader+diagAnswerSize)
		order.PutUint32(message[0:], uint32(len(message)))
		order.PutUint16(message[4:], sockDiagByFamily)
		order.PutUint32(message[8:], unix.AF_INET)
		body := message[netlinkHeader:]
		body[0], body[1] = unix.AF_INET, tcpListen
		binary.BigEndian.PutUint16(body[diagPort:], uint16(port))
		order.PutUint32(body[diagUID:], 1000)
		order.PutUint32(body[diagInode:], inode)
		datagram = append(datagram, message...)
	}
	end := make([]byte, netlinkHeader+4)
	order.PutUint32(end[0:], uint32(len(end)))
	order.PutUint16(end[4:], unix.NLMSG_DONE)
	order.PutUint32(end[8:], unix.AF_INET)
	return append(datagram, end...)
}

func TestParseDiagnosis(t *testing.T) {
	found, done, err := parseDiagnosis(diagnosis(40001, 7, 8), unix.AF_INET, 40001)
	want := []Socket{
		{Port: 40001, Inode: 7, UID: 1000, Loopback: true}, {Port: 40001, Inode: 8, UID: 1000, Loopback: true},
	}
	if err != nil || !done || !slices.Equal(found, want) {
		t.Errorf("got %+v, %v, %v, want %+v", found, done, err, want)
	}
	if found, _, err := parseDiagnosis(diagnosis(40001, 7, 8), unix.AF_INET, anyPort); err != nil ||
		!slices.Equal(found, want) {
		t.Errorf("of any port: %+v, %v, want %+v", found, err, want)
	}
	// Another port, and answers to another request.
	if found, _, err := parseDiagnosis(diagnosis(40001, 7), unix.AF_INET, 40002); err != nil || len(found) > 0 {
		t.Errorf("another port: %+v, %v", found, err)
	}
	if found, done, err := parseDiagnosis(diagnosis(40001, 7), unix.AF_INET6, 40001); err != nil ||
		done || len(found) > 0 {
		t.Errorf("another question: %+v, %v, %v", found, done, err)
	}
	refused := diagnosis(40001)
	binary.NativeEndian.PutUint16(refused[4:], unix.NLMSG_ERROR)
	refusal := int32(unix.ENOENT) // an errno is negated
	binary.NativeEndian.PutUint32(refused[netlinkHeader:], uint32(-refusal))
	if _, _, err := parseDiagnosis(refused, unix.AF_INET, 40001); !errors.Is(err, unix.ENOENT) {
		t.Errorf("refusal: %v, want ENOENT", err)
	}
	for length := range len(diagnosis(40001, 7)) - 1 {
		cut := diagnosis(40001, 7)[:length]
		if _, done, err := parseDiagnosis(cut, unix.AF_INET, 40001); done || length%4 != 0 && err == nil {
			t.Errorf("cut to %d bytes: done %v, %v", length, done, err)
		}
	}
}

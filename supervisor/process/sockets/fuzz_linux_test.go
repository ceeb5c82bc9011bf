package sockets

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func FuzzParseDiagnosis(f *testing.F) {
	f.Add(diagnosis(40001, 7, 8))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		found, done, err := parseDiagnosis(datagram, unix.AF_INET, 40001)
		// The standard library requires padding of the last message, and reads past the end of a dump.
		padded := append(slices.Clip(datagram), 0, 0, 0)[:(len(datagram)+3)&^3]
		messages, parseErr := syscall.ParseNetlinkMessage(padded)
		want, wantDone, whole := rows(messages)
		if err != nil {
			if errno, ok := errors.AsType[unix.Errno](err); !ok && !errors.Is(err, errDiagnosis) || ok && errno == 0 {
				t.Errorf("error %v", err)
			}
			if done || len(found) > 0 {
				t.Errorf("%+v and done %v beside an error", found, done)
			}
			if parseErr == nil && whole == len(datagram) {
				t.Errorf("%v, want %+v", err, want)
			}
			return
		}
		if parseErr != nil && done {
			return
		}
		if parseErr != nil || done != wantDone || !slices.Equal(found, want) {
			t.Errorf("%+v, done %v; want %+v, done %v (%v)", found, done, want, wantDone, parseErr)
		}
	})
}

// rows returns the listeners on port 40001 up to the end of the dump, and the size of the messages in bytes, or -1
// if one of them is not part of a list.
func rows(messages []syscall.NetlinkMessage) (found []Socket, done bool, size int) {
	for _, m := range messages {
		size += (int(m.Header.Len) + 3) &^ 3
	}
	for _, m := range messages {
		switch {
		case m.Header.Seq != unix.AF_INET:
		case m.Header.Type == unix.NLMSG_DONE:
			return found, true, size
		case m.Header.Type == unix.NLMSG_ERROR, m.Header.Type == sockDiagByFamily && len(m.Data) < diagAnswerSize:
			return nil, false, -1
		case m.Header.Type == sockDiagByFamily && m.Data[1] == tcpListen && int(m.Data[4])<<8|int(m.Data[5]) == 40001:
			address := netip.AddrFrom4([4]byte(m.Data[8:12]))
			found = append(found, Socket{
				Port: 40001,
				Loopback: m.Data[0] == unix.AF_INET && binary.NativeEndian.Uint32(m.Data[40:]) == 0 &&
					(address == netip.IPv4Unspecified() || address == netip.AddrFrom4([4]byte{127, 0, 0, 1})),
				UID: binary.NativeEndian.Uint32(m.Data[64:]), Inode: uint64(binary.NativeEndian.Uint32(m.Data[68:])),
			})
		}
	}
	return found, false, size
}

package notify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// suffix is that of a socket that is not ready to be used.
const suffix = ".new"

// ancillary is room for the credentials of a sender and some descriptors. The kernel closes those that have no room.
var ancillary = unix.CmsgSpace(unix.SizeofUcred) + unix.CmsgSpace(8*4)

// listen binds a socket under another name and renames it, so that no process reaches it before its mode is set, and
// each sender finds either the old or the new one.
func listen(path string, uid uint32) (*net.UnixConn, error) {
	made := path + suffix
	if err := os.Remove(made); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// Without SO_PASSCRED, credentials read pid 0. It is set before the socket has a name.
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var set error
		err := raw.Control(func(fd uintptr) {
			set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
		})
		return errors.Join(err, set)
	}}
	general, err := config.ListenPacket(context.Background(), "unixgram", made)
	if err != nil {
		return nil, err
	}
	conn := general.(*net.UnixConn) //nolint:forcetypeassert // of that network
	err = os.Chmod(made, 0o600)
	if err == nil && int(uid) != os.Geteuid() {
		if err = os.Chown(made, int(uid), -1); errors.Is(err, os.ErrPermission) {
			err = fmt.Errorf("%w: to give it to user %d, the master needs CAP_CHOWN", err, uid)
		}
	}
	if err == nil {
		err = crashpoint.Do(crashpoint.NotifySocket, func() error { return os.Rename(made, path) })
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close(), os.Remove(made))
	}
	return conn, nil
}

// read reads a datagram and returns its sender, 0 if that is not known. release closes the descriptors that came with
// it, and is nil if none did.
func read(conn *net.UnixConn, buf, extra []byte) (n, pid int, release func(), err error) {
	n, m, flags, _, err := conn.ReadMsgUnix(buf, extra)
	if err != nil {
		return 0, 0, nil, err
	}
	var files []int
	messages, err := unix.ParseSocketControlMessage(extra[:m])
	for _, message := range messages {
		if rights, e := unix.ParseUnixRights(&message); e == nil {
			files = append(files, rights...)
		} else if sender, e := unix.ParseUnixCredentials(&message); e == nil {
			pid = int(sender.Pid)
		}
	}
	if err == nil && flags&unix.MSG_TRUNC != 0 {
		err = unix.EMSGSIZE
	}
	if len(files) > 0 {
		release = func() {
			for _, fd := range files {
				_ = unix.Close(fd)
			}
		}
	}
	return n, pid, release, err
}

// enters reports whether a process of the user may pass the folder.
func enters(info os.FileInfo, uid uint32) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (info.Mode()&0o001 != 0 || stat.Uid == uid && info.Mode()&0o100 != 0)
}

// own reports whether the folder belongs to this process.
func own(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.IsDir() && int(stat.Uid) == os.Geteuid()
}

// ownerOf returns the user that a file belongs to.
func ownerOf(info os.FileInfo) uint32 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Uid
	}
	return uint32(os.Geteuid()) //nolint:gosec // not negative on Linux
}

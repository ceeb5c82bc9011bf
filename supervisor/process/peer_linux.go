package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/process/sockets"
)

const (
	// acceptPause and acceptMostPause bound the pauses between two checks of a connection that has not been accepted.
	acceptPause     = 100 * time.Microsecond
	acceptMostPause = 20 * time.Millisecond
	// foreignLooks is how often a peer's socket must be found outside of the family, foreignPause apart, before it
	// counts as foreign: an accepted socket has its inode shortly before it has a descriptor, and may be handed to
	// another process.
	foreignLooks = 4
	foreignPause = 10 * time.Millisecond
)

// OwnsPeer reports the owner of the other end of a TCP connection from this process to this machine. Several processes
// of one user can listen on the same port (SO_REUSEPORT), so a connection to a port on which the family listens
// may still lead to a foreign process. PortFree means that the other end is closed. Unless the family's cgroup
// proves the owner, a socket has no owner before it is accepted: OwnsPeer waits for that until ctx ends, and then
// returns an error.
func (f Family) OwnsPeer(ctx context.Context, local, remote netip.AddrPort) (Ownership, error) {
	owner, err := f.ownsPeer(ctx, local, remote)
	if err != nil {
		return PortUnknown, fmt.Errorf("find the owner of the connection to %s: %w", remote, err)
	}
	return owner, nil
}

func (f Family) ownsPeer(ctx context.Context, local, remote netip.AddrPort) (Ownership, error) {
	proven := f.cgroups()
	p, err := accepted(ctx, local, remote, proven)
	switch {
	case errors.Is(err, sockets.ErrGone):
		// A kernel without tcp_diag returns this error for every socket, including this end.
		if _, err := sockets.Connected(local, remote); err != nil {
			return PortUnknown, errors.ErrUnsupported
		}
		return PortFree, nil
	case err != nil:
		return PortUnknown, err
	case proven[p.Cgroup]:
		return PortOurs, nil
	}
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	find := func() ([]sockets.Socket, error) {
		p, err := sockets.Connected(remote, local)
		switch {
		case errors.Is(err, sockets.ErrGone) || err == nil && p.Inode == 0: // closed meanwhile
			return nil, nil
		case err != nil:
			return nil, err
		}
		return []sockets.Socket{p.Socket}, nil
	}
	for look := 1; ; look++ {
		owner, err := f.owns(ctx, buf, find)
		if owner != PortForeign || look == foreignLooks {
			return owner, err
		}
		if err := pause(ctx, foreignPause); err != nil {
			return PortUnknown, err
		}
	}
}

// accepted waits until the other end of a connection has been accepted, or until its cgroup proves that its
// listener belongs to the family.
func accepted(ctx context.Context, local, remote netip.AddrPort, proven map[uint64]bool) (sockets.Connection, error) {
	for wait := acceptPause; ; wait = min(2*wait, acceptMostPause) {
		p, err := sockets.Connected(remote, local)
		if err != nil {
			return p, err
		}
		switch {
		case proven[p.Cgroup] || p.Inode != 0:
			return p, nil
		case p.State != unix.BPF_TCP_ESTABLISHED && p.State != unix.BPF_TCP_SYN_RECV &&
			p.State != unix.BPF_TCP_NEW_SYN_RECV:
			return p, sockets.ErrGone // it is being closed
		}
		if err := pause(ctx, wait); err != nil {
			return p, fmt.Errorf("not accepted: %w", err)
		}
	}
}

// cgroups returns the IDs of the family's cgroup and of the cgroups that its members made below it. The ID of a
// cgroup is the inode of its folder.
func (f Family) cgroups() map[uint64]bool {
	if f.Cgroup == "" {
		return nil
	}
	ids := make(map[uint64]bool)
	// A folder that cannot be read proves nothing.
	_ = filepath.WalkDir(f.Cgroup, func(path string, entry fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && entry.IsDir() && unix.Stat(path, &st) == nil {
			ids[st.Ino] = true
		}
		return nil
	})
	return ids
}

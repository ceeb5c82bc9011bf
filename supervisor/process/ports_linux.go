package process

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/process/sockets"
)

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
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	ctx, cancel := context.WithTimeout(context.Background(), ownerPatience)
	defer cancel()
	return f.owns(ctx, buf, func() ([]sockets.Socket, error) { return sockets.Listeners(ctx, port) })
}

// owns reports the owner of the sockets that find returns. The sockets may come and go meanwhile.
func (f Family) owns(ctx context.Context, buf *[]byte, find func() ([]sockets.Socket, error)) (Ownership, error) {
	for try := 1; ; try++ {
		wanted, err := find()
		if err != nil {
			return PortUnknown, err
		}
		if len(wanted) == 0 {
			return PortFree, nil
		}
		s := newOwnerSearch(wanted, buf)
		if f.leads(s) {
			return PortOurs, nil
		}
		c, err := shared.Answer(ctx)
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

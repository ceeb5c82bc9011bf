package process

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/process/sockets"
)

// Search looks for the process that id names if the PID in id belongs to another PID namespace (Open returns
// ErrElsewhere): the processes in a container have different PIDs when seen from outside. The proof is the same as
// for Open. The Identity of the returned process has its PID in this process's namespace.
//
// Search returns ErrUnverifiable if no visible process is the one. It may still be alive: a process in a container
// cannot see any process outside of it.
func Search(ctx context.Context, id identity.Process, token string) (*Process, error) {
	p, err := search(ctx, id, token)
	if err != nil {
		return nil, fmt.Errorf("search for process %d of pid namespace %d: %w", id.PID, id.PIDNamespace, err)
	}
	return p, nil
}

func search(ctx context.Context, id identity.Process, token string) (*Process, error) {
	if err := checkSupport(); err != nil {
		return nil, err
	}
	pids, err := suspects(ctx, id.Proof, token)
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		fd, err := openPidfd(pid)
		if err != nil {
			continue // gone
		}
		here := id
		here.PID = pid
		if prove(fd, here, token) != nil {
			unix.Close(fd)
			continue
		}
		found, err := identify(fd, pid)
		if err != nil {
			unix.Close(fd)
			return nil, err
		}
		return watch(fd, found, learn)
	}
	return nil, fmt.Errorf("%w: it is not to be seen from here", ErrUnverifiable)
}

// suspects returns the PIDs that Search has to check. With ProofPidfdInode these are all processes, because the
// inode identifies even a process that no longer shows its token.
func suspects(ctx context.Context, proof identity.Proof, token string) ([]int, error) {
	if proof == identity.ProofPidfdInode {
		buf := procfs.GetBuffer()
		defer procfs.PutBuffer(buf)
		return procfs.Numbers("/proc", buf)
	}
	c, err := shared.Answer(ctx)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, h := range c.holders {
		if h.Token == token {
			pids = append(pids, h.PID)
		}
	}
	return pids, nil
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

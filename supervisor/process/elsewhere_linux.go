package process

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
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

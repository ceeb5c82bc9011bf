package process

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/process/sockets"
)

// ListensOn returns the TCP ports on which members listen, sorted. It reads the descriptors of every member; those of
// a member that this process may not read are left out.
func (f Family) ListensOn(ctx context.Context) ([]int, error) {
	ports, err := f.listensOn(ctx)
	if err != nil {
		return nil, fmt.Errorf("find the listeners of a family: %w", err)
	}
	return ports, nil
}

func (f Family) listensOn(ctx context.Context) ([]int, error) {
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	listeners, err := sockets.AllListeners(ctx)
	if err != nil || len(listeners) == 0 {
		return nil, err
	}
	c, err := shared.Answer(ctx)
	if err != nil {
		return nil, err
	}
	s := newOwnerSearch(listeners, buf)
	for _, member := range f.find(c, f.leaseMayBeHeld()) {
		s.look(member.pid)
	}
	ours := make(map[int]bool)
	for _, l := range listeners {
		if s.has(l) {
			ours[l.Port] = true
		}
	}
	return slices.Sorted(maps.Keys(ours)), nil
}

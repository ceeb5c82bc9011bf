package process

import (
	"context"
	"fmt"
	"maps"
	"slices"
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
	buf := getBuffer()
	defer putBuffer(buf)
	listeners, err := everyListener(ctx, buf)
	if err != nil || len(listeners) == 0 {
		return nil, err
	}
	c, err := shared.get(ctx)
	if err != nil {
		return nil, err
	}
	s := ownerSearch{missing: make(map[string]socket, len(listeners)), buf: buf}
	for _, l := range listeners {
		s.missing[socketLink(l.inode)] = l
	}
	for _, member := range f.find(c, f.leaseMayBeHeld()) {
		s.look(member.pid)
	}
	ours := make(map[int]bool)
	for _, l := range listeners {
		if _, missing := s.missing[socketLink(l.inode)]; !missing {
			ours[l.port] = true
		}
	}
	return slices.Sorted(maps.Keys(ours)), nil
}

// Listening returns a function that reports whether a process listens on a TCP port of this network namespace, on any
// address. It misses a listener only if others have just been closed. It fails if the kernel cannot be asked for all
// listeners at once.
func Listening() (listens func(port int) bool, err error) {
	table, err := readListenerTable()
	if err != nil {
		return nil, fmt.Errorf("list the listeners: %w", err)
	}
	return func(port int) bool { return len(table.on[port]) > 0 }, nil
}

func (f Family) hasToken(pid int, buf *[]byte) bool {
	environ, state := readEnviron(pid, buf)
	if f.Token == "" || state != environRead {
		return false
	}
	token, ok := lookupEnv(environ, EnvWorkerToken)
	return ok && token == f.Token
}

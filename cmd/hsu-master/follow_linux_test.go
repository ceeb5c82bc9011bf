package main

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
)

// A master that hangs takes no connection any more when many clients have tried. It is waited for all the same.
func TestFollowersWaitForAMasterWithAFullQueue(t *testing.T) {
	late := newLateMasters(t)
	raw, err := late.l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var listened error
	err = raw.Control(func(fd uintptr) { listened = syscall.Listen(int(fd), 0) })
	if err := errors.Join(err, listened); err != nil {
		t.Fatal(err)
	}
	for {
		conn, err := net.Dial("unix", late.folders.liveSocket())
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	events := &eventReader{folders: late.folders, req: &adminpb.EventsRequest{}}
	_, err = events.resume(t.Context())
	if !errors.As(err, new(noAnswerError)) || !strings.Contains(err.Error(), "full") {
		t.Errorf("%v, want that its queue is full", err)
	}
	if hint := exit.NextStep(err); hint != hangsHint {
		t.Errorf("the hint is %q, want %q", hint, hangsHint)
	}
}

package daemon

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/deploy"
)

// FuzzPassed takes the names of descriptors, as in LISTEN_FDNAMES, and the kind of each.
func FuzzPassed(f *testing.F) {
	f.Add(deploy.ListenerName, []byte{listening})
	f.Add(deploy.ListenerName+":0011:0022", []byte{listening, ofPipe, ofPipe})
	f.Add("0011:"+deploy.ListenerName+":"+deploy.ListenerName, []byte{ofPipe, listening, listening})
	f.Add("0011:0011:"+deploy.ListenerName, []byte{ofPipe, ofPipe, datagrams})
	f.Add(":::", []byte{ofDevice, listening})
	f.Fuzz(func(t *testing.T, names string, kinds []byte) {
		var files []*os.File
		sockets, listeners := 0, 0
		for i, name := range strings.SplitN(names, ":", 7) {
			if i == 6 {
				break
			}
			kind := byte(ofDevice)
			if i < len(kinds) {
				kind = kinds[i] % (ofDevice + 1)
			}
			files = append(files, os.NewFile(descriptor(t, kind), name))
			if name == deploy.ListenerName {
				sockets++
				if kind == listening {
					listeners++
				}
			}
		}
		p, err := sortPassed(files)
		if (err == nil) != (sockets == listeners && sockets <= 1) ||
			(p.listener != nil) != (err == nil && listeners == 1) {
			t.Errorf("%d sockets, %d of them listen: %v, %v", sockets, listeners, p.listener, err)
		}
		for _, f := range files {
			_, statErr := f.Stat()
			open, kept := !errors.Is(statErr, os.ErrClosed), p.handles[f.Name()] == f
			if open != kept || kept && f.Name() == deploy.ListenerName {
				t.Errorf("%q: open %v, kept %v", f.Name(), open, kept)
			}
			if err == nil && f.Name() != deploy.ListenerName && p.handles[f.Name()] == nil {
				t.Errorf("%q is lost", f.Name())
			}
			_ = f.Close()
		}
		if p.listener != nil {
			if err := p.listener.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// Kinds of descriptors.
const (
	listening = iota
	datagrams
	ofPipe
	ofDevice
)

// descriptor creates a descriptor that has no path and is on no network.
func descriptor(t *testing.T, kind byte) uintptr {
	t.Helper()
	var pair [2]int
	var err error
	switch kind {
	case listening:
		if pair[0], err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
			err = errors.Join(unix.Bind(pair[0], &unix.SockaddrUnix{}), unix.Listen(pair[0], 1))
		}
	case datagrams:
		pair, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	case ofPipe:
		err = unix.Pipe2(pair[:], unix.O_CLOEXEC)
	default:
		pair[0], err = unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if pair[1] > 0 {
		unix.Close(pair[1])
	}
	return uintptr(pair[0])
}

package api

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/core-tools/hsu-master/api/adminpb"
)

// preface is the HTTP/2 connection preface of a client, with empty settings.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// getState returns the frames of a GetState call on stream 1: its headers, uncompressed, and the empty request.
func getState() []byte {
	var block []byte
	for _, h := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", "/hsu.master.admin.v1.Admin/GetState"},
		{":authority", "x"},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		block = append(block, 0, byte(len(h[0])))
		block = append(append(block, h[0]...), byte(len(h[1])))
		block = append(block, h[1]...)
	}
	return append(frame(headers, 4, block), frame(data, 1, []byte{0, 0, 0, 0, 0})...)
}

// Frame types.
const (
	data     = 0
	headers  = 1
	settings = 4
)

// frame returns an HTTP/2 frame on stream 1.
func frame(kind, flags byte, payload []byte) []byte {
	head := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags, 0, 0, 0, 1}
	return append(head, payload...)
}

// FuzzAdminSocket sends arbitrary bytes to the socket. The server must close the connection soon after, and must
// serve other connections meanwhile.
func FuzzAdminSocket(f *testing.F) {
	f.Add([]byte(nil), true)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), false)
	f.Add(getState(), true)
	f.Add(append(getState(), "\x00\x00\x08\x06\x00\x00\x00\x00\x00pingpong"...), true)
	f.Add([]byte("\xff\xff\xff\x00\x00\x00\x00\x00\x01"), true)
	f.Add([]byte("\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x00"), true)
	f.Add([]byte("\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\xff\xff\xff\xff"), true)
	db, s := standalone(f)
	srv := NewAdminServer(&Admin{
		Store: db, Supervisor: s, Listen: "127.0.0.1:1", Version: "v", Started: time.Now(),
	}, NewBusiness(s, db))
	l := &pairs{conns: make(chan net.Conn), closed: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	f.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil {
			f.Errorf("server ended with %v", err)
		}
	})
	conn, err := grpc.NewClient("passthrough:///pair", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return l.dial() }))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = conn.Close() })
	other := adminpb.NewAdminClient(conn)

	f.Fuzz(func(t *testing.T, sent []byte, begun bool) {
		const most = time.Minute // on a loaded machine
		c, err := l.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if err := c.SetDeadline(time.Now().Add(most)); err != nil {
			t.Fatal(err)
		}
		if begun {
			sent = append([]byte(preface), sent...)
		}
		var answer []byte
		read := make(chan error, 1)
		go func() {
			var err error
			answer, err = io.ReadAll(io.LimitReader(c, 64<<20))
			read <- err
		}()
		if _, err := c.Write(sent); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("what was sent is not read: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), most)
		defer cancel()
		if got, err := other.GetState(ctx, &adminpb.GetStateRequest{}); err != nil ||
			got.GetState().GetMasterId() != db.MasterID() {
			t.Errorf("meanwhile another caller gets %v, %v", got, err)
		}
		_ = c.CloseWrite() // if the server has closed the connection, the read below shows it
		if err = <-read; err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the connection is not ended: %v", err)
		}
		if begun && len(answer) > 3 && answer[3] != settings {
			t.Errorf("it answers %q, want its settings first", answer)
		}
	})
}

// pairs is a listener without an address; each connection is a socket pair.
type pairs struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pairs) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pairs) Close() error {
	close(p.closed)
	return nil
}

func (*pairs) Addr() net.Addr { return &net.UnixAddr{Name: "pair", Net: "unix"} }

// dial creates a connection and passes its other end to the server.
func (p *pairs) dial() (*net.UnixConn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		var e error
		ends[i], e = net.FileConn(file)
		err = errors.Join(err, e, file.Close())
	}
	if err == nil {
		select {
		case p.conns <- ends[0]:
			return ends[1].(*net.UnixConn), nil
		case <-p.closed:
			err = net.ErrClosed
		}
	}
	for _, c := range ends {
		if c != nil {
			_ = c.Close()
		}
	}
	return nil, err
}

package main

import (
	"errors"
	"net"
	"path/filepath"
	"testing"
)

// The backlog of a socket still takes connections while its process is being ended.
func TestMasterThatDiesWhileItIsAskedIsNone(t *testing.T) {
	dir := t.TempDir()
	f := folders{state: dir, runtime: dir, runtimeGiven: true}
	l, err := net.Listen("unix", filepath.Join(dir, adminSocket))
	if err != nil {
		t.Fatal(err)
	}
	died := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		died <- errors.Join(err, conn.Close(), l.Close())
	}()
	if _, err := liveState(t.Context(), f); !errors.Is(err, errNoMaster) {
		t.Errorf("%v, want that no master is running", err)
	}
	if err := <-died; err != nil {
		t.Error(err)
	}
}

func TestReasonForNoConnectionIsPlain(t *testing.T) {
	for text, want := range map[string]string{
		`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`:                "connection refused",
		`connection error: desc = "transport: Error while dialing: dial tcp: lookup nowhere: no such host"`:                           "lookup nowhere: no such host",
		`connection error: desc = "transport: authentication handshake failed: tls: first record does not look like a TLS handshake"`: "authentication handshake failed: tls: first record does not look like a TLS handshake",
		`connection error: desc = "error reading server preface: http2: frame too large"`:                                             "error reading server preface: http2: frame too large",
		`the worker said: connection error: desc = "x"`:                                                                               `the worker said: connection error: desc = "x"`,
	} {
		if got := plainly(text); got != want {
			t.Errorf("%s\nis %q, want %q", text, got, want)
		}
	}
}

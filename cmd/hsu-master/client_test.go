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

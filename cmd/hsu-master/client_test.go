package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/master"
	"github.com/core-tools/hsu-master/store"
)

// A socket's backlog still accepts connections while its process is terminating.
func TestMasterThatDiesWhileItIsAskedIsNone(t *testing.T) {
	dir := t.TempDir()
	f := folders{state: dir, runtime: dir, runtimeGiven: true}
	l, err := net.Listen("unix", master.AdminSocket(dir))
	if err != nil {
		t.Fatal(err)
	}
	died := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		died <- errors.Join(err, conn.Close(), l.Close())
	}()
	if _, err := liveState(t.Context(), f); !errors.Is(err, exit.ErrNoMaster) {
		t.Errorf("%v, want that no master is running", err)
	}
	if err := <-died; err != nil {
		t.Error(err)
	}
}

// With --runtime-dir a client looks nowhere else than in that folder.
func TestSocketOfAGivenRuntimeDirIsTheOnlyOne(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct {
		announced string
		given     bool
		want      string
	}{
		{announced: "", want: "/given/admin.sock"},
		{announced: "/elsewhere/admin.sock\n", want: "/elsewhere/admin.sock"},
		{announced: "/cut", want: "/given/admin.sock"},
		{announced: "/elsewhere/admin.sock\n", given: true, want: "/given/admin.sock"},
	} {
		if err := os.WriteFile(filepath.Join(dir, "admin.path"), []byte(test.announced), 0o600); err != nil {
			t.Fatal(err)
		}
		f := folders{state: dir, runtime: "/given", runtimeGiven: test.given}
		if path := f.liveSocket(); path != test.want {
			t.Errorf("%q announced, runtime folder given: %v: socket %s, want %s",
				test.announced, test.given, path, test.want)
		}
	}
}

// heldState returns a state directory that this process holds until the end of the test.
func heldState(t *testing.T) (dir string, db *store.DB) {
	t.Helper()
	dir = t.TempDir()
	db, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return dir, db
}

// A master takes the lock on the state before it listens.
func TestMasterThatIsStartingIsWaitedFor(t *testing.T) {
	dir, db := heldState(t)
	f := folders{state: dir, runtime: dir, runtimeGiven: true}
	// If all of this takes longer than the command waits, the machine is too busy for this test.
	began := time.Now()
	tooBusy := func() bool { return time.Since(began) >= startingFor }
	answered := make(chan error, 1)
	go func() {
		_, err := readState(t.Context(), f)
		answered <- err
	}()
	select {
	case err := <-answered:
		if tooBusy() {
			return
		}
		t.Fatalf("answered before the master listens: %v", err)
	case <-time.After(10 * startingPoll):
	}
	l, err := net.Listen("unix", master.AdminSocket(dir))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	adminpb.RegisterAdminServer(server, starting{stateDir: db.StateDirID().String()})
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	if err := <-answered; err != nil && !tooBusy() {
		t.Errorf("the master that has started does not answer: %v", err)
	}
}

// A master whose socket is gone runs all the same: to start another one would fail.
func TestMasterThatDoesNotAnswerIsNotMissing(t *testing.T) {
	dir, _ := heldState(t)
	_, err := dialRegistry(t.Context(), folders{state: dir, runtime: dir, runtimeGiven: true})
	if !errors.Is(err, exit.ErrHeld) || exit.Code(err) != exit.Locked {
		t.Errorf("%v, exit code %d, want that a master holds the state", err, exit.Code(err))
	}
}

// starting is the admin service of a master that has just started.
type starting struct {
	adminpb.UnimplementedAdminServer
	stateDir string
}

func (s starting) GetState(context.Context, *adminpb.GetStateRequest) (*adminpb.GetStateResponse, error) {
	return &adminpb.GetStateResponse{State: &adminpb.State{StateDir: s.stateDir}}, nil
}

func TestReasonForNoConnectionIsPlain(t *testing.T) {
	const desc = "connection error: desc = "
	for _, test := range []struct{ text, want string }{
		{
			desc + `"transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`,
			"connection refused",
		},
		{
			desc + `"transport: Error while dialing: dial tcp: lookup nowhere: no such host"`,
			"lookup nowhere: no such host",
		},
		{
			desc + `"transport: authentication handshake failed: tls: first record does not look like a TLS handshake"`,
			"authentication handshake failed: tls: first record does not look like a TLS handshake",
		},
		{
			desc + `"error reading server preface: http2: frame too large"`,
			"error reading server preface: http2: frame too large",
		},
		{
			`the worker said: connection error: desc = "x"`,
			`the worker said: connection error: desc = "x"`,
		},
	} {
		if got := plainly(test.text); got != test.want {
			t.Errorf("%s\nis %q, want %q", test.text, got, test.want)
		}
	}
}

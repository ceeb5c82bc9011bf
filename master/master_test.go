package master

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// options returns options for a master without workers, on a free port.
func options(t *testing.T) Options {
	t.Helper()
	return Options{StateDir: t.TempDir(), Listen: ListenTCP("127.0.0.1:0")}
}

func mustNew(t *testing.T, o Options) *Master {
	t.Helper()
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// serves checks that the master becomes ready, responds and ends without an error when its context is cancelled.
func serves(t *testing.T, m *Master, cause error) {
	t.Helper()
	ctx, end := context.WithCancelCause(t.Context())
	defer end(nil)
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	select {
	case <-m.Ready():
	case err := <-ended:
		t.Fatalf("ended before it was ready: %v", err)
	}
	if err := m.Alive(t.Context()); err != nil {
		t.Errorf("it does not respond: %v", err)
	}
	select {
	case <-m.Stopping():
		t.Error("it stops too early")
	default:
	}
	end(cause)
	if err := <-ended; err != nil {
		t.Errorf("Run = %v", err)
	}
	<-m.Stopping()
	if err := m.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
}

// Close releases everything, so that the same process can run a master after a master.
func TestMasterAfterMasterOfTheSameState(t *testing.T) {
	o := options(t)
	for _, cause := range []error{nil, supervisor.ErrDetach, nil} {
		serves(t, mustNew(t, o), cause)
		if path, ok := AnnouncedSocket(o.StateDir); ok {
			t.Errorf("%s is announced after the end of its master", path)
		}
	}
}

func TestMasterThatNeverRunsIsClosed(t *testing.T) {
	o := options(t)
	m := mustNew(t, o)
	address := m.Addr().String()
	if err := m.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if conn, err := net.Dial("tcp", address); err == nil {
		t.Error("the port is still open")
		_ = conn.Close()
	}
	if _, err := os.Stat(AdminSocket(filepath.Join(o.StateDir, "run"))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the admin socket is left: %v", err)
	}
	serves(t, mustNew(t, o), nil)
}

// A second master of a state must not take a port, and fails because of the state.
func TestSecondMasterOfAStateOpensNoPort(t *testing.T) {
	o := options(t)
	m := mustNew(t, o)
	o.Listen = func() (net.Listener, error) {
		t.Error("the port is opened without the state")
		return nil, errors.New("in use")
	}
	_, err := New(o)
	if _, locked := errors.AsType[*store.LockedError](err); !locked {
		t.Errorf("New = %v, want that another master holds the state", err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// New leaves nothing open if a step fails; TestMain checks descriptors, and the state must be free.
func TestNewClosesAllIfItFails(t *testing.T) {
	refused := func() (net.Listener, error) { return nil, errors.New("refused") }
	for name, spoil := range map[string]func(*Options){
		"unit":    func(o *Options) { o.Units = []unit.Spec{{Name: "a/b"}} },
		"port":    func(o *Options) { o.Listen = refused },
		"metrics": func(o *Options) { o.ListenMetrics = refused },
		"admin":   func(o *Options) { o.RuntimeDir = filepath.Join(o.StateDir, strings.Repeat("x", 120)) },
	} {
		t.Run(name, func(t *testing.T) {
			good := options(t)
			o := good
			spoil(&o)
			if m, err := New(o); err == nil {
				t.Errorf("New = %v, want an error", m.Addr())
			}
			serves(t, mustNew(t, good), nil)
		})
	}
}

func TestStateAndListenerAreRequired(t *testing.T) {
	for _, o := range []Options{{StateDir: t.TempDir()}, {Listen: ListenTCP("127.0.0.1:0")}} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) succeeds", o)
		}
	}
}

// A deleted socket is restored, and only while the state is there.
func TestDeletedAdminSocketIsRestored(t *testing.T) {
	restoresSocket(t, func(string) error { return nil })
}

// Commands would find no master at a socket that nothing serves.
func TestReplacedAdminSocketIsRestored(t *testing.T) {
	restoresSocket(t, func(path string) error {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return err
		}
		l.SetUnlinkOnClose(false)
		return l.Close()
	})
}

// restoresSocket tests that a master restores its socket after it was deleted and something else took its place.
func restoresSocket(t *testing.T, replace func(path string) error) {
	t.Helper()
	o := options(t)
	end := begin(t, mustNew(t, o))
	path, ok := AnnouncedSocket(o.StateDir)
	if want := AdminSocket(filepath.Join(o.StateDir, "run")); !ok || path != want {
		t.Fatalf("announced is %q, want %q", path, want)
	}
	err := errors.Join(os.Remove(path), replace(path), os.Remove(filepath.Join(o.StateDir, adminPathName)))
	if err != nil {
		t.Fatal(err)
	}
	awaitSocket(t, path)
	end()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the restored socket is left: %v", err)
	}
}

// begin returns when the master serves. end stops and closes it.
func begin(t *testing.T, m *Master) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	<-m.Ready()
	return func() {
		t.Helper()
		cancel()
		if err := errors.Join(<-ended, m.Close()); err != nil {
			t.Error(err)
		}
	}
}

// awaitSocket returns when something serves the socket.
func awaitSocket(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(4 * keepInterval); ; time.Sleep(keepInterval / 50) {
		if conn, err := net.Dial("unix", path); err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the socket does not come back")
		}
	}
}

// Modules and clients find the registry only by its path. It serves those that were connected before, too.
func TestDeletedRegistrySocketIsRestored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.sock")
	o := options(t)
	o.ListenRegistry = ListenRegistry(path)
	end := begin(t, mustNew(t, o))
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	defer client.CloseIdleConnections()
	healthy(t, client)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	awaitSocket(t, path)
	healthy(t, client) // on the connection of before
	client.CloseIdleConnections()
	healthy(t, client)
	end()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the restored socket is left: %v", err)
	}
}

// healthy asks the module registry for its health.
func healthy(t *testing.T, client *http.Client) {
	t.Helper()
	answer, err := client.Get("http://localhost/api/v1/health")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("health of the registry: %s, %v", answer.Status, err)
	}
	_ = answer.Body.Close()
}

// FuzzAnnouncedSocket takes the content of admin.path.
func FuzzAnnouncedSocket(f *testing.F) {
	for _, s := range []string{
		"/run/hsu-master/admin.sock\n", "/run/hsu", "", "\n", "relative\n", "/a\nb\n", "/nul\x00\n",
		"/" + strings.Repeat("x", maxAdminPath) + "\n", "/\xff\n",
	} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, adminPathName), text, 0o600); err != nil {
			t.Fatal(err)
		}
		path, ok := AnnouncedSocket(dir)
		whole := bytes.HasPrefix(text, []byte("/")) && bytes.HasSuffix(text, []byte("\n")) &&
			!bytes.Contains(text, []byte{0}) && len(text) <= maxAdminPath
		switch {
		case ok != whole:
			t.Errorf("%q: announced is %v, want %v", text, ok, whole)
		case ok && path+"\n" != string(text):
			t.Errorf("%q leads to %q", text, path)
		}
	})
}

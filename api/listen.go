package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
)

// ListenAdmin listens on the unix socket at path, mode 0600. It replaces a socket that a crashed master left
// behind. It fails if another process serves the socket.
func ListenAdmin(ctx context.Context, path string) (net.Listener, error) {
	l, err := unixSocket{
		what: "admin socket", path: path, mode: 0o600, point: crashpoint.AdminListen,
		shorter: "choose a shorter --runtime-dir", other: "choose another --runtime-dir",
	}.listen(ctx)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// ListenRegistry listens on the unix socket of the module registry, to which every user may connect. Like
// [ListenAdmin], it replaces the socket of a crashed master. It fails if users other than root and this one can replace
// the socket. In a sticky folder such as /tmp, the socket remains when the listener is closed, so that nobody else can
// take its name.
func ListenRegistry(ctx context.Context, path string) (net.Listener, error) {
	const what = "module registry"
	sticky, err := safefile.CheckEntry(path)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what, path, err)
	}
	// Two masters of different states must not replace each other's socket. In /tmp everyone can hold the lock, which
	// is then done without.
	unlock, err := safefile.LockFolder(filepath.Dir(path))
	if err == nil {
		defer unlock()
	}
	l, err := unixSocket{
		what: what, path: path, mode: 0o666, point: crashpoint.RegistryListen,
		shorter: "choose a shorter --registry", other: "choose another --registry",
	}.listen(ctx)
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(!sticky)
	return l, nil
}

// unixSocket is a unix socket that is made in place of one that a crashed master has left behind.
type unixSocket struct {
	what           string // for errors
	path           string
	mode           fs.FileMode
	point          crashpoint.Point
	shorter, other string // next steps if the path is too long or in use
}

func (s unixSocket) listen(ctx context.Context) (*net.UnixListener, error) {
	if most := safefile.MaxSocketPath; len(s.path) > most {
		return nil, fmt.Errorf("%s path of %d bytes is over the kernel's limit of %d: %s: %s",
			s.what, len(s.path), most, s.shorter, s.path)
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", s.path)
	if err == nil {
		_ = conn.Close()
	}
	if err == nil || errors.Is(err, syscall.EAGAIN) { // the queue of its connections is full
		return nil, fmt.Errorf("%s %s is served by another master: %s", s.what, s.path, s.other)
	}
	if info, err := os.Lstat(s.path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s %s: a file that is no socket is in its place: move it away", s.what, s.path)
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the %s of an earlier master: %w", s.what, err)
	}
	var listener *net.UnixListener
	err = crashpoint.Do(s.point, func() (err error) {
		listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: s.path, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on the %s: %w", s.what, err)
	}
	if err := os.Chmod(s.path, s.mode); err != nil {
		return nil, errors.Join(fmt.Errorf("protect the %s: %w", s.what, err), listener.Close())
	}
	return listener, nil
}

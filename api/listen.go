package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// maxSocketPath returns the capacity of sun_path in bytes without the final NUL: unix(7).
func maxSocketPath() int {
	if runtime.GOOS == "linux" {
		return 107
	}
	return 103
}

// ListenAdmin listens on the unix socket at path, mode 0600. It replaces a socket that a crashed master left
// behind. It fails if another process serves the socket.
func ListenAdmin(ctx context.Context, path string) (net.Listener, error) {
	if most := maxSocketPath(); len(path) > most {
		return nil, fmt.Errorf(
			"admin socket path of %d bytes is over the kernel's limit of %d: choose a shorter --runtime-dir: %s",
			len(path), most, path)
	}
	dialer := net.Dialer{Timeout: time.Second}
	if conn, err := dialer.DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("admin socket %s is served by another master: choose another --runtime-dir", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("admin socket %s: a file that is no socket is in its place: move it away", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the admin socket of an earlier master: %w", err)
	}
	var listener net.Listener
	err := crashpoint.Do(crashpoint.AdminListen, func() (err error) {
		var config net.ListenConfig
		listener, err = config.Listen(ctx, "unix", path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on the admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect the admin socket: %w", err), listener.Close())
	}
	return listener, nil
}

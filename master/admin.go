package master

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
)

const (
	adminSocketName = "admin.sock" // in the runtime folder
	adminPathName   = "admin.path" // in the state folder

	// maxAdminPath is PATH_MAX of Linux, which is more than the path of a socket can have.
	maxAdminPath = 4096
)

// AdminSocket returns the path of the admin socket of a master with the given runtime folder.
func AdminSocket(runtimeDir string) string { return filepath.Join(runtimeDir, adminSocketName) }

// AnnouncedSocket returns the path of the admin socket that the running master of a state has written into its folder,
// or that the last master left there. It returns false if there is none, or if the file is incomplete, for example
// after a power cut, or has other content.
func AnnouncedSocket(stateDir string) (path string, ok bool) {
	text, err := safefile.ReadFile(filepath.Join(stateDir, adminPathName), maxAdminPath+1)
	if err != nil || len(text) > maxAdminPath {
		return "", false
	}
	path, whole := strings.CutSuffix(string(text), "\n")
	if !whole || !filepath.IsAbs(path) || strings.Contains(path, "\x00") {
		return "", false
	}
	return path, true
}

// adminSocket serves administrators on a unix socket in the runtime folder. A file in the state folder has the socket's
// path, because clients know only that folder. Both exist while the master runs: keep restores a socket that was
// deleted or replaced.
type adminSocket struct {
	stateDir, runtimeDir string
	log                  *slog.Logger
	server               *grpc.Server
	socket
}

// open takes the socket of the earlier program of this process, or makes it.
func (s *adminSocket) open(passed *os.File) (err error) {
	path := AdminSocket(s.runtimeDir)
	l := Inherit(passed, func(a net.Addr) bool { return a.String() == path })
	if l != nil {
		l.(*net.UnixListener).SetUnlinkOnClose(true) // a path is the address of no other kind of listener
	} else if l, err = api.ListenAdmin(context.Background(), path); err != nil {
		return err
	}
	s.set(l)
	return nil
}

// serve serves the connections of a listener.
func (s *adminSocket) serve(l net.Listener) error {
	return s.server.Serve(api.BoundAdmin(l, func(err error) { s.log.Debug("admin connection refused", "error", err) }))
}

// finish stops the server. Calls in flight may take that long to end.
func (s *adminSocket) finish(within time.Duration) {
	late := time.AfterFunc(within, s.server.Stop)
	defer late.Stop()
	s.server.GracefulStop()
}

// announce writes the socket's path to a file for clients. The file also remains after a crash; it is not written again
// if it is unchanged, because on a full disk that would fail.
func (s *adminSocket) announce() error {
	path, text := filepath.Join(s.stateDir, adminPathName), AdminSocket(s.runtimeDir)+"\n"
	if old, err := safefile.ReadFile(path, maxAdminPath+1); err == nil && string(old) == text {
		return nil
	}
	return safefile.Replace(crashpoint.AdminPath, path, text, 0o600)
}

// takeBack removes the file that announce has written.
func (s *adminSocket) takeBack() error {
	err := crashpoint.Do(crashpoint.AdminPathGone,
		func() error { return os.Remove(filepath.Join(s.stateDir, adminPathName)) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil // moved or deleted while the master ran
	}
	return err
}

// keep restores a socket that was deleted or replaced, until ctx is done.
func (s *adminSocket) keep(ctx context.Context, wg *sync.WaitGroup, stateIsThere func(context.Context) bool) {
	keeper{
		socket: &s.socket,
		listen: func(ctx context.Context) (net.Listener, error) {
			if err := safefile.MkdirAll(s.runtimeDir); err != nil {
				return nil, fmt.Errorf("make the runtime folder: %w", err)
			}
			return api.ListenAdmin(ctx, AdminSocket(s.runtimeDir))
		},
		serve: func(l net.Listener) error {
			wg.Go(func() {
				if err := s.serve(l); err != nil {
					s.log.Warn("admin server failed", "error", err)
				}
			})
			s.log.Warn("admin socket restored", "path", l.Addr().String())
			return s.announce()
		},
		failed: func(err error) { s.log.Warn("admin socket not restored", "error", err) },
	}.run(ctx, stateIsThere)
}

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
	// keepInterval is the interval between checks that the socket is still there. It may be deleted by a cleanup of
	// /run, or with the state folder by mistake, or be hidden by another file.
	keepInterval = 5 * time.Second
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

	mu       sync.Mutex
	listener net.Listener // the newest; the server also has those whose sockets were deleted
	own      fs.FileInfo  // of the newest socket
}

// open takes the socket of the earlier program of this process, or makes it.
func (s *adminSocket) open(passed *os.File) (err error) {
	path := AdminSocket(s.runtimeDir)
	if s.listener = Inherit(passed, func(a net.Addr) bool { return a.String() == path }); s.listener != nil {
		s.listener.(*net.UnixListener).SetUnlinkOnClose(true) // a path is the address of no other kind of listener
	} else if s.listener, err = api.ListenAdmin(context.Background(), path); err != nil {
		return err
	}
	s.own, _ = os.Lstat(path) // if it is gone already, keep restores it
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

// current returns the newest listener.
func (s *adminSocket) current() net.Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listener
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

// keep restores a socket that was deleted or replaced, until ctx is done. While stateIsThere returns false, it puts
// nothing into the folders, because the state may come back there.
func (s *adminSocket) keep(ctx context.Context, wg *sync.WaitGroup, stateIsThere func(context.Context) bool) {
	tick := time.NewTicker(keepInterval)
	defer tick.Stop()
	var last string
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !stateIsThere(ctx) {
			last = "" // the store reports it
			continue
		}
		err := s.restore(ctx, wg)
		switch {
		case err == nil:
			last = ""
		case ctx.Err() == nil && err.Error() != last:
			last = err.Error()
			s.log.Warn("admin socket not restored", "error", err)
		}
	}
}

// restore listens anew if the socket was deleted or replaced. It leaves files alone that are no sockets, and sockets
// that another process serves.
func (s *adminSocket) restore(ctx context.Context, wg *sync.WaitGroup) error {
	path := AdminSocket(s.runtimeDir)
	there, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) || err == nil && os.SameFile(there, s.own) {
		return err
	}
	if err := safefile.MkdirAll(s.runtimeDir); err != nil {
		return fmt.Errorf("make the runtime folder: %w", err)
	}
	listener, err := api.ListenAdmin(ctx, path)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// The old listener stays open for connected clients. Closing it later must not unlink the new socket.
	if old, ok := s.listener.(*net.UnixListener); ok {
		old.SetUnlinkOnClose(false)
	}
	s.listener = listener
	s.own, _ = os.Lstat(path)
	wg.Go(func() {
		if err := s.serve(listener); err != nil {
			s.log.Warn("admin server failed", "error", err)
		}
	})
	s.log.Warn("admin socket restored", "path", path)
	return s.announce()
}

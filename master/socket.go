package master

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// keepInterval is the interval between checks that a socket is still there. It may be deleted by a cleanup of /run, or
// with the state folder by mistake, or be hidden by another file.
const keepInterval = 5 * time.Second

// socket is a unix socket whose file is made again while the master runs.
type socket struct {
	mu       sync.Mutex
	listener net.Listener // the newest; the server also has those whose files were deleted
	own      fs.FileInfo  // of the newest file; nil if it was gone already when it was looked at
}

// path returns the path of the socket, "" if its address is no path.
func (s *socket) path() string {
	l, ok := s.current().(*net.UnixListener)
	if !ok || strings.HasPrefix(l.Addr().String(), "@") {
		return ""
	}
	return l.Addr().String()
}

// current returns the newest listener, nil if s is nil.
func (s *socket) current() net.Listener {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listener
}

// set takes a listener in place of the last one.
func (s *socket) set(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The old listener stays open for connected clients. Closing it later must not unlink the new file.
	if old, ok := s.listener.(*net.UnixListener); ok {
		old.SetUnlinkOnClose(false)
	}
	s.listener, s.own = l, nil
	if l, ok := l.(*net.UnixListener); ok {
		s.own, _ = os.Lstat(l.Addr().String())
	}
}

// missing reports whether the file was deleted or replaced.
func (s *socket) missing(path string) (bool, error) {
	there, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return err == nil && !os.SameFile(there, s.own), err
}

// keeper makes the file of a socket again that was deleted or replaced.
type keeper struct {
	socket *socket
	listen func(context.Context) (net.Listener, error) // leaves files alone that another process serves
	serve  func(net.Listener) error                    // begins to serve a new listener
	failed func(error)                                 // reports why the file is not restored, each reason once
}

// run keeps the socket until ctx is done. While stateIsThere returns false, it puts nothing into folders, because the
// state may come back there.
func (k keeper) run(ctx context.Context, stateIsThere func(context.Context) bool) {
	path := k.socket.path()
	if path == "" {
		return
	}
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
		err := k.restore(ctx, path)
		switch {
		case err == nil:
			last = ""
		case ctx.Err() == nil && err.Error() != last:
			last = err.Error()
			k.failed(err)
		}
	}
}

func (k keeper) restore(ctx context.Context, path string) error {
	if missing, err := k.socket.missing(path); !missing {
		return err
	}
	l, err := k.listen(ctx)
	if err != nil {
		return err
	}
	k.socket.set(l)
	return k.serve(l)
}

// Package notify receives the notifications of workers, in the protocol of sd_notify(3): a worker finds the path of a
// datagram socket in NOTIFY_SOCKET and sends READY=1, WATCHDOG=1, STATUS= and STOPPING=1 to it.
//
// Each worker has a socket of its own, and a goroutine reads it as long as the master lives: a sender to a socket that
// is not read blocks after 11 datagrams (Linux). A datagram counts only if the kernel names a sender that belongs to
// the worker.
package notify

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// The variables by which a worker finds its socket.
const (
	EnvSocket   = "NOTIFY_SOCKET" // path of the socket
	EnvWatchdog = "WATCHDOG_USEC" // the longest time between two WATCHDOG=1, in microseconds
)

const (
	// maxDatagram is the size of a datagram. A longer one is ignored, as systemd ignores it.
	maxDatagram = 4096
	// maxSenders is how many processes may send before it is known which of them belong to the worker, and maxEarly how
	// many datagrams each.
	maxSenders = 16
	maxEarly   = 16
	// A worker may send so many datagrams in a period. More of them wait in the socket, and then their sender waits.
	burst  = 50
	period = 100 * time.Millisecond
	// Closing a descriptor that came with a datagram may take any time: a TCP socket can linger, and a file system that
	// a process serves may not answer. So a goroutine closes it. Beyond maxReleases of them, the reader waits.
	maxReleases = 4
	// closeTimeout is how long Close waits for such descriptors.
	closeTimeout = time.Second
)

// Socket is the notify socket of one worker. Its methods may be called from any goroutine.
type Socket struct {
	path string
	uid  uint32 // of the worker
	log  *slog.Logger
	stop chan struct{} // closed by Close

	readers sync.WaitGroup // one for each of conns

	releases chan struct{} // has an element for each running goroutine that closes descriptors

	mu       sync.Mutex
	conns    []*net.UnixConn    // the present one last; a process may be connected to one that was replaced
	bound    fs.FileInfo        // the path of the present one
	belongs  func(pid int) bool // nil until Attach
	changes  func()             // called after a change, in the reader's goroutine; it must not block
	waiting  map[int]*early     // what came before, by its sender
	state    State
	changed  chan struct{} // closed at the next change
	reported bool          // that a datagram of another process was ignored
	unmended bool          // the last Mend failed
}

// early is a message of a process of which it is not known yet whether it belongs to the worker. Its descriptors stay
// open as long: a sender that waits for their end lives when it is judged.
type early struct {
	datagrams []byte
	releases  []func()
}

func (e *early) release() {
	for _, release := range e.releases {
		if release != nil {
			release()
		}
	}
}

// Listen makes the socket at path for a worker that runs as the user, and begins to read it. It replaces a socket that
// an earlier master has left there.
func Listen(path string, uid uint32, log *slog.Logger) (*Socket, error) {
	conn, err := listen(path, uid)
	if err != nil {
		return nil, fmt.Errorf("make the notify socket: %w", err)
	}
	return serve(path, uid, conn, log), nil
}

// Restore begins to read a socket at path that outlived an earlier master. The caller closes the file.
func Restore(path string, file *os.File, log *slog.Logger) (*Socket, error) {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("the notify socket %s is gone", path)
	}
	general, err := net.FilePacketConn(file)
	if err != nil {
		return nil, fmt.Errorf("restore the notify socket: %w", err)
	}
	conn, ok := general.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("restore the notify socket: it is of another kind"), general.Close())
	}
	return serve(path, ownerOf(info), conn, log), nil
}

func serve(path string, uid uint32, conn *net.UnixConn, log *slog.Logger) *Socket {
	s := &Socket{
		path: path, uid: uid, log: log, stop: make(chan struct{}),
		waiting: map[int]*early{}, changed: make(chan struct{}), releases: make(chan struct{}, maxReleases),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(conn)
	return s
}

// add begins to read conn, which was bound to the path. The caller holds the lock.
func (s *Socket) add(conn *net.UnixConn) {
	s.conns = append(s.conns, conn)
	s.bound, _ = os.Lstat(s.path) // if it is gone, Mend makes it again
	s.readers.Go(func() { s.receive(conn) })
}

// Mend makes the socket again if its path was removed or replaced, and reports whether it had to. Then a WATCHDOG=1
// that the worker has sent counts as sent now, since the later ones were lost.
func (s *Socket) Mend() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stop:
		return false, nil
	default:
	}
	there, err := os.Lstat(s.path)
	if err == nil && os.SameFile(there, s.bound) {
		return false, nil
	}
	conn, err := remake(s.path, s.uid)
	if err != nil {
		if !s.unmended { // each check tries it again
			s.log.Error("worker notify socket not made again", "path", s.path, "error", err)
		}
		s.unmended = true
		return true, fmt.Errorf("make the notify socket again: %w", err)
	}
	s.unmended = false
	if last := len(s.conns) - 1; last > 0 { // two are enough: their number must not grow
		old := s.conns[0]
		s.readers.Go(func() { _ = old.Close() }) // descriptors of the worker may make that take long
		s.conns = s.conns[last:]
	}
	s.add(conn)
	if !s.state.Watchdog.IsZero() {
		s.state.Watchdog = time.Now()
	}
	s.log.Warn("worker notify socket made again", "path", s.path)
	return true, nil
}

// Path returns the path of the socket.
func (s *Socket) Path() string { return s.path }

// Attach names the processes whose notifications count, and the state that they have reported before. Notifications
// that came meanwhile are judged now. changes is called after each change of the state. It must not block.
func (s *Socket) Attach(told State, belongs func(pid int) bool, changes func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.changes = told, changes
	for len(s.waiting) > 0 {
		waiting := s.waiting
		s.waiting = map[int]*early{}
		s.mu.Unlock() // judging them may take a while
		for pid, e := range waiting {
			s.judge(pid, e.datagrams, belongs)
			go e.release()
		}
		s.mu.Lock()
	}
	s.belongs = belongs
}

// State returns the reported state of the worker, and a channel that is closed when it changes.
func (s *Socket) State() (State, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.changed
}

// File returns a duplicate of the socket, which the caller closes.
func (s *Socket) File() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[len(s.conns)-1].File()
}

// Close stops reading. The path remains: a worker that lives on notifies the next master there. If descriptors of the
// worker keep the socket from being closed, that continues when Close returns.
func (s *Socket) Close() error {
	s.mu.Lock()
	close(s.stop)
	conns := s.conns
	s.mu.Unlock()
	closed := make(chan error, 1)
	go func() {
		var err error
		for _, conn := range conns {
			err = errors.Join(err, conn.Close())
		}
		s.readers.Wait()
		s.mu.Lock()
		waiting := s.waiting
		s.waiting = nil
		s.mu.Unlock()
		for _, e := range waiting {
			e.release()
		}
		closed <- err
	}()
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case err := <-closed:
		return err
	case <-timer.C:
		return errors.New("the notify socket is still being closed: a descriptor that was sent to it takes long")
	}
}

// Remove removes the path of a closed socket.
func (s *Socket) Remove() error { return os.Remove(s.path) }

// receive reads a socket until it is closed.
func (s *Socket) receive(conn *net.UnixConn) {
	buf, extra := make([]byte, maxDatagram), make([]byte, ancillary)
	began, count := time.Now(), 0
	for {
		n, pid, release, err := read(conn, buf, extra)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || !s.hear(pid, buf[:n], release) {
			s.free(release) // the sender may wait for that: BARRIER=1
		}
		if count++; count < burst {
			continue
		}
		if !s.pause(period - time.Since(began)) {
			return
		}
		began, count = time.Now(), 0
	}
}

// free closes the descriptors that came with a datagram, and does not wait for that unless many are being closed.
func (s *Socket) free(release func()) {
	if release == nil {
		return
	}
	select {
	case s.releases <- struct{}{}:
		go func() {
			release()
			<-s.releases
		}()
	case <-s.stop:
		release() // Close waits for the reader, but not for long
	}
}

// pause waits, and reports false if the socket was closed meanwhile.
func (s *Socket) pause(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.stop:
		return false
	}
}

// hear takes a datagram of the process. It reports true if it has kept it, and calls release later.
func (s *Socket) hear(pid int, datagram []byte, release func()) (kept bool) {
	s.mu.Lock()
	belongs := s.belongs
	if belongs == nil {
		kept = s.keep(pid, datagram, release)
	}
	s.mu.Unlock()
	if belongs != nil {
		s.judge(pid, datagram, belongs)
	}
	return kept
}

// judge applies a datagram if its sender belongs to the worker.
func (s *Socket) judge(pid int, datagram []byte, belongs func(pid int) bool) {
	if !belongs(pid) {
		s.ignore(pid)
		return
	}
	s.mu.Lock()
	s.state = s.state.Apply(datagram, time.Now())
	close(s.changed)
	s.changed = make(chan struct{})
	changes := s.changes
	s.mu.Unlock()
	changes()
}

// keep keeps a datagram until it can be judged, and reports whether there was room. The caller holds the lock.
func (s *Socket) keep(pid int, datagram []byte, release func()) bool {
	e := s.waiting[pid]
	if e == nil && len(s.waiting) == maxSenders {
		return false
	}
	if e == nil {
		e = new(early)
		s.waiting[pid] = e
	}
	if len(e.datagrams)+len(datagram) >= maxDatagram || len(e.releases) == maxEarly {
		return false
	}
	e.datagrams = append(append(e.datagrams, datagram...), '\n')
	e.releases = append(e.releases, release) // nil too: they are counted
	return true
}

// ignore reports the first datagram of another process.
func (s *Socket) ignore(pid int) {
	s.mu.Lock()
	first := !s.reported
	s.reported = true
	s.mu.Unlock()
	if first {
		s.log.Warn("worker notification ignored", "sender", pid,
			"reason", "the sender has ended already, or is no process of the worker")
	}
}

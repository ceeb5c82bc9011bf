package rotate

import (
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// alarms report the next change of logs that are not looked at meanwhile, by inotify(7). A nil *alarms reports none.
type alarms struct {
	rang    chan struct{} // has room for one: there is something in changed
	closing chan struct{}
	ended   chan struct{}
	pause   time.Duration // between two readings of events, so that many logs wake this program once

	mu      sync.Mutex
	inotify *os.File // nil until the first log is watched
	fd      int
	set     map[int32]string // workers by watch descriptor
	changed []string         // workers
}

func newAlarms() *alarms {
	return &alarms{
		rang: make(chan struct{}, 1), closing: make(chan struct{}), ended: make(chan struct{}), pause: quickest,
		set: map[int32]string{},
	}
}

// open has the kernel make the alarms. A user has a limited number of them. The caller holds mu.
func (a *alarms) open() error {
	if a.inotify != nil {
		return nil
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return err
	}
	a.inotify, a.fd = os.NewFile(uintptr(fd), "inotify"), fd
	go a.serve(a.inotify)
	return nil
}

func (a *alarms) close() {
	if a == nil {
		return
	}
	close(a.closing)
	a.mu.Lock()
	opened := a.inotify
	a.mu.Unlock()
	if opened != nil {
		_ = opened.Close()
		<-a.ended
	}
}

// watch has the next change of a log reported, and only that one. It reports whether it will be: a user has a limited
// number of watches.
func (a *alarms) watch(worker, path string) bool {
	if a == nil {
		return false
	}
	// IN_ATTRIB is a removal too, while a process has the file open.
	const changes = unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_MOVE_SELF | unix.IN_DELETE_SELF
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.open(); err != nil {
		return false
	}
	watch, err := unix.InotifyAddWatch(a.fd, path, changes|unix.IN_ONESHOT|unix.IN_DONT_FOLLOW)
	if err != nil {
		return false
	}
	a.set[int32(watch)] = worker //nolint:gosec // the kernel's are of this type
	return true
}

// rung returns a channel that receives when logs have changed.
func (a *alarms) rung() <-chan struct{} {
	if a == nil {
		return nil
	}
	return a.rang
}

// take returns the workers whose logs have changed since the last call. They are not watched any more.
func (a *alarms) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	changed := a.changed
	a.changed = nil
	return changed
}

func (a *alarms) serve(inotify *os.File) {
	defer close(a.ended)
	buf := make([]byte, 4<<10)
	for {
		n, err := inotify.Read(buf)
		if err != nil {
			return // it is closed
		}
		if a.note(buf[:n]) {
			select {
			case a.rang <- struct{}{}:
			default: // an earlier signal is pending
			}
		}
		select {
		case <-time.After(a.pause):
		case <-a.closing:
		}
	}
}

// note notes the changes in a list of events, and reports whether there are any.
func (a *alarms) note(events []byte) (found bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(events) >= unix.SizeofInotifyEvent {
		event := (*unix.InotifyEvent)(unsafe.Pointer(&events[0]))
		events = events[min(len(events), unix.SizeofInotifyEvent+int(event.Len)):]
		if worker, set := a.set[event.Wd]; set {
			delete(a.set, event.Wd)
			a.changed, found = append(a.changed, worker), true
		}
		if event.Mask&unix.IN_Q_OVERFLOW != 0 { // events were dropped
			for watch, worker := range a.set {
				delete(a.set, watch)
				a.changed, found = append(a.changed, worker), true
			}
		}
	}
	return found
}

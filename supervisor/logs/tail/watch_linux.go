package tail

import (
	"bytes"
	"errors"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watcher notes the changes of all logs in a folder, by inotify(7). It uses no time while there are none.
type watcher struct {
	subscriptions
	inotify *os.File
	ended   chan struct{}
}

// gather is the least time between two reads of the changes, so that those of a fast writer are one.
const gather = 20 * time.Millisecond

func watchFolder(dir string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &watcher{inotify: os.NewFile(uintptr(fd), "inotify"), ended: make(chan struct{})}
	const events = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, dir, events); err != nil {
		return nil, errors.Join(&os.PathError{Op: "watch", Path: dir, Err: err}, w.inotify.Close())
	}
	go w.serve()
	return w, nil
}

func (w *watcher) stop() {
	_ = w.inotify.Close()
	<-w.ended
}

func (w *watcher) serve() {
	defer close(w.ended)
	buf := make([]byte, 64<<10)
	for {
		n, err := w.inotify.Read(buf)
		if err != nil {
			return
		}
		if names, all := changesIn(buf[:n]); all {
			w.noteAll()
		} else if len(names) > 0 {
			w.note(names)
		}
		time.Sleep(gather)
	}
}

// changesIn returns the changes of logs in a list of events, one for each log and in the order of the first event. It
// returns all if events were dropped.
func changesIn(buf []byte) (changes []fileChange, all bool) {
	index := map[string]int{}
	for len(buf) >= unix.SizeofInotifyEvent {
		event := (*unix.InotifyEvent)(unsafe.Pointer(&buf[0]))
		if event.Mask&unix.IN_Q_OVERFLOW != 0 {
			return nil, true
		}
		end := min(len(buf), unix.SizeofInotifyEvent+int(event.Len))
		name := bytes.TrimRight(buf[unix.SizeofInotifyEvent:end], "\x00")
		buf = buf[end:]
		if !bytes.HasSuffix(name, []byte(".log")) { // a file beside a log
			continue
		}
		i, known := index[string(name)]
		if !known {
			i = len(changes)
			index[string(name)] = i
			changes = append(changes, fileChange{name: string(name)})
		}
		if event.Mask&unix.IN_MODIFY == 0 {
			changes[i].replaced = true
		}
	}
	return changes, false
}

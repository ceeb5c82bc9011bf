package daemon

import (
	"errors"
	"maps"
	"os"
	"strings"
	"sync"

	"github.com/core-tools/hsu-master/internal/handover"
)

// keptPrefix precedes the names of the files of a handleStore that are handed over.
const keptPrefix = "kept/"

// handleStore keeps handles of workers in systemd's file descriptor store, if there is one, for the next process, and
// duplicates of them for the next program of this process. It is safe for concurrent use.
type handleStore struct {
	notify *notifier
	kept   map[string]*os.File // of earlier masters
	mu     sync.Mutex
	own    map[string]*os.File // duplicates of all files that are kept
}

// newHandleStore returns a store with the files that systemd has passed, and with those that the earlier program of
// this process has handed over.
func newHandleStore(n *notifier, kept map[string]*os.File, taken *Takeover) *handleStore {
	s := &handleStore{notify: n, kept: kept, own: map[string]*os.File{}}
	maps.Copy(s.kept, taken.withPrefix(keptPrefix))
	for name, f := range s.kept {
		_ = s.duplicate(name, f) // the only consequence: the next program opens the process itself
	}
	return s
}

// Kept implements [launcher.Keeper].
func (s *handleStore) Kept(name string) *os.File { return s.kept[name] }

// Keep implements [launcher.Keeper].
func (s *handleStore) Keep(name string, handle *os.File) error {
	// FDPOLL=0 keeps the handle when its process exits: its exit is the reason why it is stored.
	return errors.Join(s.duplicate(name, handle), s.notify.sendFile("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, handle))
}

// Drop implements [launcher.Keeper].
func (s *handleStore) Drop(name string) error {
	s.notify.send("FDSTOREREMOVE=1\nFDNAME=" + name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.own[name]; f != nil {
		_ = f.Close() // a duplicate, which nothing was written to
		delete(s.own, name)
	}
	return nil
}

func (s *handleStore) duplicate(name string, f *os.File) error {
	own, err := handover.Duplicate(f)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if former := s.own[name]; former != nil {
		_ = former.Close() // a duplicate, which nothing was written to
	}
	s.own[name] = own
	return nil
}

// handOver moves the files to those that are handed over.
func (s *handleStore) handOver(to map[string]*os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, f := range s.own {
		to[keptPrefix+name] = f
	}
	clear(s.own)
}

// withPrefix removes and returns the files whose names have the prefix, by the rest of their names.
func (t *Takeover) withPrefix(prefix string) map[string]*os.File {
	found := map[string]*os.File{}
	if t == nil {
		return found
	}
	for name := range t.files {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			found[rest] = t.file(name)
		}
	}
	return found
}

package unit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/internal/placeholder"
)

// lookPatience is how long a look at a folder or a program is waited for: its file system may be that of a server that
// is gone.
const lookPatience = time.Second

// looks looks at folders and programs. A look that does not end is waited for once, and not by each unit that has the
// folder or the program.
type looks struct {
	mu      sync.Mutex
	running map[lookAt]*look
}

// lookAt identifies a look.
type lookAt struct {
	dir         string
	name, next  string // of a program: see [lookUpProgram]
	user, group string
}

type look struct {
	began time.Time
	done  chan struct{}
	err   error // valid when done is closed
}

// hostLooks looks at the folders and programs of all units.
var hostLooks = &looks{running: map[lookAt]*look{}}

// check returns the error of a look, or nil if that is not known in time.
func (l *looks) check(at lookAt, stat func() error) error {
	l.mu.Lock()
	under := l.running[at]
	if under == nil {
		under = &look{began: time.Now(), done: make(chan struct{})}
		l.running[at] = under
		go func() {
			under.err = stat()
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.running, at)
			close(under.done)
		}()
	}
	l.mu.Unlock()
	select {
	case <-under.done:
		return under.err
	case <-time.After(time.Until(under.began.Add(lookPatience))):
		return nil
	}
}

// statDir returns an error if it is certain that no worker can run in the folder. One that this process may not see may
// be one that the user of the workers can enter.
func statDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && mentionsPlaceholder(dir):
		return fmt.Errorf("there is no folder %s on this host: placeholders are not replaced in it", dir)
	case errors.Is(err, fs.ErrNotExist) && strings.Contains(dir, "/~/"):
		return fmt.Errorf("there is no folder %s on this host: ~ is not replaced, use ${HOME}", dir)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no folder %s on this host: make it, or name another one", dir)
	case errors.Is(err, syscall.ENOTDIR), err == nil && !info.IsDir():
		return fmt.Errorf("%s is no folder: name the one that the workers run in", dir)
	}
	return nil
}

func mentionsPlaceholder(text string) bool {
	return slices.ContainsFunc([]string{placeholder.Port, placeholder.Unit, placeholder.Worker, placeholder.Replica},
		func(name string) bool { return placeholder.In(text, name) })
}

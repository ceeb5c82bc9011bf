package unit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/internal/placeholder"
)

// dirPatience is how long a look at a folder is waited for: its file system may be that of a server that is gone.
const dirPatience = time.Second

// dirLooks looks at folders. A look that does not end is waited for once, and not by each unit that has the folder.
type dirLooks struct {
	stat func(dir string) error

	mu      sync.Mutex
	running map[string]*dirLook
}

type dirLook struct {
	began time.Time
	done  chan struct{}
	err   error // valid when done is closed
}

// workingDirs looks at the folders of all units.
var workingDirs = &dirLooks{stat: statDir, running: map[string]*dirLook{}}

// check returns the error of the folder, or nil if that is not known in time.
func (d *dirLooks) check(dir string) error {
	d.mu.Lock()
	look := d.running[dir]
	if look == nil {
		look = &dirLook{began: time.Now(), done: make(chan struct{})}
		d.running[dir] = look
		go func() {
			look.err = d.stat(dir)
			d.mu.Lock()
			defer d.mu.Unlock()
			delete(d.running, dir)
			close(look.done)
		}()
	}
	d.mu.Unlock()
	select {
	case <-look.done:
		return look.err
	case <-time.After(time.Until(look.began.Add(dirPatience))):
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

package statefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
)

// TempSuffix is the suffix of a file that is about to replace another.
const TempSuffix = ".tmp"

// Ops performs the durable operations. The zero value only calls them.
type Ops struct {
	// At, if not nil, is called with the name of the point ("commit") before each operation and with "after-" and
	// that name ("after-commit") when it is done. An error that it returns becomes the error of the operation. It
	// is for tests.
	At func(moment string) error
}

// Perform performs a durable operation: see [crashpoint.Do].
func (o Ops) Perform(p crashpoint.Point, act func() error) error {
	if o.At == nil {
		return crashpoint.Do(p, act)
	}
	return crashpoint.Do(p, func() error {
		if err := o.At(string(p)); err != nil {
			return err
		}
		if err := act(); err != nil {
			return err
		}
		return o.At(p.After())
	})
}

// Replace writes a whole file: under a temporary name, synced, renamed, and then the directory is synced. There is
// never a partial file at path.
func (o Ops) Replace(point crashpoint.Point, path string, write func(*os.File) error) error {
	return o.Place(point, path+TempSuffix, func(f *os.File) (string, error) { return path, write(f) }, nil)
}

// Place is like Replace, but the caller chooses the temporary name, and write returns the final path, which may be
// known only after writing. If check is not nil, the synced file must pass it before it is renamed.
func (o Ops) Place(
	point crashpoint.Point, temp string, write func(*os.File) (string, error), check func(*os.File) error,
) (err error) {
	// A file left under the temporary name by a crash was never in use. Remove it instead of overwriting it: it
	// could be a link to another file.
	if err := Remove(temp); err != nil {
		return err
	}
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// If only the sync of the directory failed, temp is already renamed and missing.
			err = errors.Join(err, Remove(temp))
		}
	}()
	var path string
	err = o.Perform(point.Write(), func() (err error) {
		path, err = write(f)
		return err
	})
	if err == nil {
		err = o.Perform(point.Sync(), f.Sync)
	}
	if err == nil && check != nil {
		err = check(f)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return o.Publish(point, temp, path)
}

// Publish gives a synced file its name, durably.
func (o Ops) Publish(point crashpoint.Point, temp, path string) error {
	if err := o.Perform(point.Rename(), func() error { return os.Rename(temp, path) }); err != nil {
		return err
	}
	return o.Perform(point.SyncFolder(), func() error { return safefile.SyncDir(filepath.Dir(path)) })
}

// Remove removes a file that may be missing.
func Remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

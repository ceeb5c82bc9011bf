// Package safefile opens files at paths that other users may be able to change, and checks whether they can.
//
// No open blocks, although a path can name a FIFO without a reader, a device or a file with a lease of another
// process. Only regular files are opened. The master's own files are never opened through a symbolic link, which
// could lead a master running as root to any file of the machine. A file that a user has named, such as a
// certificate, may be a link.
//
// [CheckFolder] and [CheckProgram] cover the rest for a process that runs as root: if they return nil, only root can
// replace the file.
package safefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// ErrNotRegular is returned for a path that does not name a regular file.
var ErrNotRegular = errors.New("not a regular file")

// OpenFile is [os.OpenFile] for a file of the master's own: it refuses a symbolic link as the last element of name.
func OpenFile(name string, flag int, perm fs.FileMode) (*os.File, error) {
	return open(name, flag|noFollow, perm, os.Lstat, "move it away")
}

// Open opens a file of the master's own for reading.
func Open(name string) (*os.File, error) { return OpenFile(name, os.O_RDONLY, 0) }

// OpenInput opens a file that a user has named for reading. It follows symbolic links.
func OpenInput(name string) (*os.File, error) {
	return open(name, os.O_RDONLY, 0, os.Stat, "name a regular file")
}

// ReadFile returns the first limit bytes of a file of the master's own.
func ReadFile(name string, limit int64) ([]byte, error) {
	f, err := Open(name)
	if err != nil {
		return nil, err
	}
	return readAll(f, limit)
}

// WriteNew writes a new file of the master's own. It first removes an existing file, link or FIFO with that name.
func WriteNew(name, content string, perm fs.FileMode) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Close())
}

// Replace writes a file of the master's own atomically: after a crash, path has either the old or the new content.
// point is that of the file.
func Replace(point crashpoint.Point, path, content string, perm fs.FileMode) error {
	tmp := path + ".new"
	if err := crashpoint.Do(point.Write(), func() error { return WriteNew(tmp, content, perm) }); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	if err := crashpoint.Do(point.Rename(), func() error { return os.Rename(tmp, path) }); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

// maxInput bounds the size of a file that a user has named. Bundles of certificate authorities take 250 KiB.
const maxInput = 16 << 20

// ReadInput returns the content of a file that a user has named.
func ReadInput(name string) ([]byte, error) { return ReadInputUpTo(name, maxInput) }

// ErrTooLarge is returned by [ReadInputUpTo] for a file with more bytes than it may have.
var ErrTooLarge = errors.New("the file is too large")

// ReadInputUpTo is [ReadInput] with another bound, a number of whole MiB.
func ReadInputUpTo(name string, most int64) ([]byte, error) {
	f, err := OpenInput(name)
	if err != nil {
		return nil, err
	}
	b, err := readAll(f, most+1)
	if err == nil && int64(len(b)) > most {
		return nil, fmt.Errorf("read %s: %w: it has more than %d MiB", name, ErrTooLarge, most>>20)
	}
	return b, err
}

func readAll(f *os.File, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(f, limit))
	return b, errors.Join(err, f.Close())
}

// open opens a regular file. It uses stat to describe a path that names something else, and next is the next step then.
func open(
	name string, flag int, perm fs.FileMode, stat func(string) (fs.FileInfo, error), next string,
) (*os.File, error) {
	f, err := os.OpenFile(name, flag|noWait, perm)
	if errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err != nil {
		if info, e := stat(name); e == nil && !info.Mode().IsRegular() {
			return nil, notRegular(name, info, next)
		}
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notRegular(name, info, next)
	}
	if err == nil {
		err = restoreWait(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func notRegular(name string, info fs.FileInfo, next string) error {
	return fmt.Errorf("open %s: %w but %s: %s", name, ErrNotRegular, kind(info.Mode()), next)
}

func kind(mode fs.FileMode) string {
	switch mode.Type() {
	case fs.ModeDir:
		return "a directory"
	case fs.ModeSymlink:
		return "a symbolic link"
	case fs.ModeNamedPipe:
		return "a FIFO"
	case fs.ModeSocket:
		return "a socket"
	default:
		return "a device"
	}
}

// MkdirAll makes a folder, and its missing parents, accessible only to the master's user. If the path does not
// pass [CheckFolder], it returns that error before it makes anything.
func MkdirAll(path string) error { return makeFolder(path, os.MkdirAll) }

// Mkdir is like MkdirAll for a folder whose parent exists. It returns nil if the folder exists.
func Mkdir(path string) error {
	return makeFolder(path, func(path string, mode fs.FileMode) error {
		if err := os.Mkdir(path, mode); !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	})
}

func makeFolder(path string, mkdir func(string, fs.FileMode) error) error {
	if exists, err := checkFolder(path); exists || err != nil {
		return err
	}
	if err := mkdir(path, 0o700); err != nil {
		return err
	}
	return CheckFolder(path)
}

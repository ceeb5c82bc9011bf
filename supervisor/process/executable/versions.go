package executable

import (
	"errors"
	"os"
	"sync"

	"github.com/core-tools/hsu-master/internal/safefile"
)

// versions caches a value that follows from the content of a file, for each version of each file. It is dropped as a
// whole when it reaches maxVersions.
type versions[T any] struct {
	sync.Mutex
	known map[fileVersion]func() (T, error)
}

const maxVersions = 256

// fileVersion identifies a version of a file: it changes whenever the content does.
type fileVersion struct {
	device, inode    uint64
	size             int64
	modified, status int64 // nanoseconds of mtime and ctime
}

// of returns the value of the file that is at path now. It calls read once for each version, even for concurrent
// callers, and again if read has failed.
func (v *versions[T]) of(path string, read func(*os.File) (T, error)) (T, error) {
	if version, err := versionAt(path); err == nil {
		if value, known := v.get(version); known {
			return value()
		}
	}
	var none T
	file, err := safefile.OpenInput(path)
	if err != nil {
		return none, err
	}
	defer func() { _ = file.Close() }() // it is only read
	version, err := versionOf(file)
	if errors.Is(err, errors.ErrUnsupported) {
		return read(file)
	}
	if err != nil {
		return none, err
	}
	value := v.add(version, sync.OnceValues(func() (T, error) { return read(file) }))
	found, err := value()
	if err != nil { // try again next time
		v.Lock()
		delete(v.known, version)
		v.Unlock()
	}
	return found, err
}

func (v *versions[T]) get(version fileVersion) (value func() (T, error), known bool) {
	v.Lock()
	defer v.Unlock()
	value, known = v.known[version]
	return value, known
}

// add returns the known value of the version, or else makes it value.
func (v *versions[T]) add(version fileVersion, value func() (T, error)) func() (T, error) {
	v.Lock()
	defer v.Unlock()
	if known, ok := v.known[version]; ok {
		return known
	}
	if v.known == nil || len(v.known) >= maxVersions {
		v.known = make(map[fileVersion]func() (T, error))
	}
	v.known[version] = value
	return value
}

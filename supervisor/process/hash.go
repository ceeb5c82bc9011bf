package process

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/core-tools/hsu-master/internal/safefile"
)

// hashes caches the hash of each version of a file, because all workers of a unit run the same binary. It is
// dropped as a whole when it reaches maxHashes.
var hashes struct {
	sync.Mutex
	known map[fileVersion]func() (string, error)
}

const maxHashes = 256

// fileVersion identifies a version of a file: it changes whenever the content does.
type fileVersion struct {
	device, inode    uint64
	size             int64
	modified, status int64 // nanoseconds of mtime and ctime
}

// HashExecutable returns the SHA-256 of a regular file in hex. It reads each version of a file once, even for
// concurrent callers. A version is identified by device, inode, size and the times of change.
func HashExecutable(path string) (string, error) {
	file, err := safefile.OpenInput(path)
	if err != nil {
		return "", fmt.Errorf("hash executable: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	version, err := versionOf(file)
	if errors.Is(err, errors.ErrUnsupported) {
		return hashFile(file, path)
	}
	if err != nil {
		return "", fmt.Errorf("hash executable: %w", err)
	}
	hashes.Lock()
	hash, found := hashes.known[version]
	if !found {
		if hashes.known == nil || len(hashes.known) >= maxHashes {
			hashes.known = make(map[fileVersion]func() (string, error))
		}
		hash = sync.OnceValues(func() (string, error) { return hashFile(file, path) })
		hashes.known[version] = hash
	}
	hashes.Unlock()
	text, err := hash()
	if err != nil { // try again next time
		hashes.Lock()
		delete(hashes.known, version)
		hashes.Unlock()
	}
	return text, err
}

func hashFile(file *os.File, path string) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return "", fmt.Errorf("hash executable %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

package executable

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
)

// hashes has the SHA-256 of files, because all workers of a unit run the same binary.
var hashes versions[string]

// Hash returns the SHA-256 of a regular file in hex. It reads each version of a file once, even for
// concurrent callers. A version is identified by device, inode, size and the times of change.
func Hash(path string) (string, error) {
	hash, err := hashes.of(path, func(file *os.File) (string, error) { return hashFile(file, path) })
	if err != nil {
		return "", fmt.Errorf("hash executable: %w", err)
	}
	return hash, nil
}

func hashFile(file *os.File, path string) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

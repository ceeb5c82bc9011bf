package statedir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statefile"
)

// ErrSecretKeyLost is returned for a key that must be replaced: an incomplete file, or one that other users can read.
var ErrSecretKeyLost = errors.New("of no use any more")

// ReadSecretKey returns the key in the file secret.key, or nil if there is no such file. It refuses a symbolic link.
func ReadSecretKey(dir string) (records.SecretKey, error) {
	path := filepath.Join(dir, SecretKeyName)
	f, err := safefile.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("read the secret key: %w: give it to the user of the master, or move it away", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the secret key: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the secret key: %w", err)
	}
	switch {
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("secret key %s: %w: other users can read it (mode %s)",
			path, ErrSecretKeyLost, info.Mode())
	case info.Size() != records.SecretKeySize:
		return nil, fmt.Errorf("secret key %s: %w: it has %d bytes, want %d",
			path, ErrSecretKeyLost, info.Size(), records.SecretKeySize)
	}
	key := make(records.SecretKey, records.SecretKeySize)
	if _, err := f.ReadAt(key, 0); err != nil {
		return nil, fmt.Errorf("read the secret key: %w", err)
	}
	return key, nil
}

// NewSecretKey returns a new key.
func NewSecretKey() records.SecretKey {
	key := make(records.SecretKey, records.SecretKeySize)
	_, _ = rand.Read(key) // never fails, see crypto/rand
	return key
}

// WriteSecretKey makes the key durable in the file secret.key.
func WriteSecretKey(ops statefile.Ops, dir string, key records.SecretKey) error {
	err := ops.Replace(crashpoint.SecretKey, filepath.Join(dir, SecretKeyName), func(f *os.File) error {
		_, err := f.Write(key)
		return err
	})
	if err != nil {
		return fmt.Errorf("write the secret key: %w", err)
	}
	return nil
}

package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// makeDir creates the state directory where it is missing. Its parents get the
// same mode; they are ours too then.
func makeDir(dir string) error {
	fi, err := os.Stat(dir)
	switch {
	case err == nil && !fi.IsDir():
		return fmt.Errorf("state directory %s: it is a file: choose another one", dir)
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("state directory: %w: choose one that can be written to", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create the state directory: %w: choose one that can be written to", err)
	}
	if err := syncDir(filepath.Dir(filepath.Clean(dir))); err != nil {
		return fmt.Errorf("create the state directory: %w", err)
	}
	return nil
}

// replaceFile writes a whole file: under a temporary name, synced, renamed and
// the folder synced. At no moment is there half a file at path.
func replaceFile(path string, write func(*os.File) error) (err error) {
	temp := path + tempSuffix
	// What a crash has left under the temporary name was never the file. It is
	// removed and not written over: it could be a link to somewhere else.
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp))
		}
	}()
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return publish(temp, path)
}

// publish gives a synced file its name, durably.
func publish(temp, path string) error {
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// readMasterID returns the UUID from the file master-id, or "" where there is
// no such file.
func readMasterID(dir string) (string, error) {
	path := filepath.Join(dir, masterIDName)
	b, err := readSmall(path, 256)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the master id: %w", err)
	}
	id := strings.TrimSpace(string(b))
	if !validUUID(id) {
		return "", &DamagedError{Path: path, Err: fmt.Errorf("%.64q is no UUID", id)}
	}
	return id, nil
}

func writeMasterID(dir, id string) error {
	err := replaceFile(filepath.Join(dir, masterIDName), func(f *os.File) error {
		_, err := io.WriteString(f, id+"\n")
		return err
	})
	if err != nil {
		return fmt.Errorf("write the master id: %w", err)
	}
	return nil
}

func readSmall(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, most))
	return b, errors.Join(err, f.Close())
}

// newUUID returns a random one (version 4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // ends the program where there is no randomness
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// validUUID tells whether s is a UUID in its usual form.
func validUUID(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	_, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	return err == nil && strings.Count(s, "-") == 4
}

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

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// makeDir creates the state directory where it is missing. Its parents get the
// same mode; they are ours too then.
func (s seams) makeDir(dir string) error {
	fi, err := os.Stat(dir)
	switch {
	case err == nil && !fi.IsDir():
		return fmt.Errorf("state directory %s: it is a file: choose another one", dir)
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("state directory: %w: choose one that can be written to", err)
	}
	// createDatabase makes it durable.
	if err := s.do(crashpoint.StateFolder, func() error { return os.MkdirAll(dir, 0o700) }); err != nil {
		return fmt.Errorf("create the state directory: %w: choose one that can be written to", err)
	}
	return nil
}

// syncWay makes the folders durable that lead to dir, as far as its file system
// reaches: any of them may have been made by makeDir, in this run or in one that
// was killed right after it.
func (s seams) syncWay(dir string) error {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return err
	}
	here, err := dirID(dir)
	if err != nil {
		return err
	}
	return s.do(crashpoint.FolderSync, func() error {
		for parent := filepath.Dir(dir); parent != dir; dir, parent = parent, filepath.Dir(parent) {
			// What cannot be seen or read was not made by us, and what is above neither.
			if there, err := dirID(parent); err != nil || there.Device != here.Device {
				return nil //nolint:nilerr // see above
			}
			if err := syncDir(parent); errors.Is(err, fs.ErrPermission) {
				return nil
			} else if err != nil {
				return fmt.Errorf("make the state directory durable: %w", err)
			}
		}
		return nil
	})
}

// replaceFile writes a whole file: under a temporary name, synced, renamed and
// the folder synced. At no moment is there half a file at path.
func (s seams) replaceFile(file crashpoint.Point, path string, write func(*os.File) error) error {
	return s.place(file, path+tempSuffix, func(f *os.File) (string, error) { return path, write(f) }, nil)
}

// place is replaceFile under a temporary name of the caller's, for a file whose own
// name is known when it is written. Once synced it must pass the check; nil: none.
func (s seams) place(file crashpoint.Point, temp string, write func(*os.File) (string, error), check func(*os.File) error) (err error) {
	// What a crash has left under the temporary name was never the file. It is
	// removed and not written over: it could be a link to somewhere else.
	if err := removeIfThere(temp); err != nil {
		return err
	}
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeIfThere(temp)) // it is the file by now, where only the folder was not synced
		}
	}()
	var path string
	err = s.do(file.Write(), func() (err error) {
		path, err = write(f)
		return err
	})
	if err == nil {
		err = s.do(file.Sync(), f.Sync)
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
	return s.publish(file, temp, path)
}

// removeIfThere removes a file that may be missing.
func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// publish gives a synced file its name, durably.
func (s seams) publish(file crashpoint.Point, temp, path string) error {
	if err := s.do(file.Rename(), func() error { return os.Rename(temp, path) }); err != nil {
		return err
	}
	return s.do(file.SyncFolder(), func() error { return syncDir(filepath.Dir(path)) })
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

func (s seams) writeMasterID(dir, id string) error {
	err := s.replaceFile(crashpoint.MasterID, filepath.Join(dir, masterIDName), func(f *os.File) error {
		_, err := io.WriteString(f, id+"\n")
		return err
	})
	if err != nil {
		return fmt.Errorf("write the master id: %w", err)
	}
	return nil
}

// openRegular opens a file for reading. One that is no file at all is damaged: not
// even opening it is safe, since a pipe would wait for a writer.
func openRegular(path string) (*os.File, int64, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !fi.Mode().IsRegular() {
		return nil, 0, &DamagedError{Path: path, Err: errors.New("it is no regular file")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	if fi, err = f.Stat(); err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, fi.Size(), nil
}

func readSmall(path string, most int64) ([]byte, error) {
	f, _, err := openRegular(path)
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

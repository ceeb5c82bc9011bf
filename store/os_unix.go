//go:build unix

package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// mapSize is how much of the address space state.db gets from the start. While
// a reader (a backup, say) is at work the file can grow within it without
// waiting for the reader.
const mapSize = 64 << 20

// tryLock takes the lock on f's open file description without waiting.
func tryLock(f *os.File, exclusive bool) error {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	err := flock(f, how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errLocked
	}
	return err
}

// deleted tells whether no name leads to an open file any more.
func deleted(f *os.File) (bool, error) {
	fi, err := f.Stat()
	if err != nil {
		return false, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 0, nil
}

func unlock(f *os.File) error { return flock(f, unix.LOCK_UN) }

func flock(f *os.File, how int) error {
	return control(f, func(fd int) error { return unix.Flock(fd, how) })
}

// control runs a system call on f, again for as long as a signal cuts it off.
func control(f *os.File, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		for {
			failed = call(int(fd))
			if !errors.Is(failed, unix.EINTR) {
				return
			}
		}
	})
	return errors.Join(err, failed)
}

// dirID returns what identifies the directory on this machine.
func dirID(dir string) (FileID, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return FileID{}, err
	}
	return fileID(fi, dir)
}

func fileID(fi fs.FileInfo, path string) (FileID, error) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return FileID{}, fmt.Errorf("stat %s: no device and inode", path)
	}
	return FileID{Device: uint64(st.Dev), Inode: st.Ino}, nil
}

// syncDir makes the entries of a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

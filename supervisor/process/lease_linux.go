package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// Lease is an open, locked file that an instance and its descendants inherit. The
// flock belongs to the open file description, which they share: it is held until
// the last of them has died or closed it, whatever became of their environment.
// So that a lease tells of one instance only, each has an inode of its own.
type Lease struct {
	id   FileID
	mu   sync.Mutex
	file *os.File // close-on-exec here; nil after Close
}

// CreateLease makes a new lease file and puts it in the place of an earlier one,
// which stays locked for those who hold it. Others keep their hands off the path;
// file systems without locks give an error.
func CreateLease(path string) (*Lease, error) {
	l, err := createLease(path)
	if err != nil {
		return nil, fmt.Errorf("create lease: %w", err)
	}
	return l, nil
}

func createLease(path string) (_ *Lease, err error) {
	// A fixed name, so that crashes leave one such file at most. Its inode goes first:
	// somebody may have inherited it.
	name := path + ".new"
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(name)
		}
	}()
	if _, err := retry(func() (int, error) { return 0, unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	id, err := fileID(int(file.Fd()))
	if err != nil {
		return nil, fmt.Errorf("stat %s: %w", name, err)
	}
	if err := crashpoint.Do(crashpoint.Lease, func() error { return os.Rename(name, path) }); err != nil {
		return nil, err
	}
	return &Lease{id: id, file: file}, nil
}

// ID returns what a record keeps to ask for this lease and no other.
func (l *Lease) ID() FileID { return l.id }

// Close closes this process's descriptor. The lock stays with the instance.
func (l *Lease) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

func (l *Lease) descriptor() (uintptr, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return 0, fmt.Errorf("the lease is closed: %w", os.ErrClosed)
	}
	return l.file.Fd(), nil
}

// LeaseHeld reports whether anybody holds the lease that the file at path was
// locked for. ErrLeaseUnknown means that the file is gone or another's.
func LeaseHeld(path string, id FileID) (bool, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	})
	if err != nil {
		return false, fmt.Errorf("%w: open %s: %w", ErrLeaseUnknown, path, err)
	}
	defer unix.Close(fd)
	found, err := fileID(fd)
	switch {
	case err != nil:
		return false, fmt.Errorf("%w: stat %s: %w", ErrLeaseUnknown, path, err)
	case found != id:
		return false, fmt.Errorf("%w: %s is file %s now, not %s", ErrLeaseUnknown, path, found, id)
	}
	// A shared lock, so that two who ask at once do not see each other.
	_, err = retry(func() (int, error) { return 0, unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) })
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("%w: lock %s: %w", ErrLeaseUnknown, path, err)
	}
	return false, nil
}

// HoldsLease reports whether a process holds the lease that the file at path was
// locked for; it does not where its descriptors may not be read.
func HoldsLease(pid int, path string, id FileID) bool {
	buf := getBuffer()
	defer putBuffer(buf)
	return id != (FileID{}) && holdsLease(pid, id, path, buf)
}

func fileID(fd int) (FileID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return FileID{}, err
	}
	return FileID{Device: uint64(st.Dev), Inode: st.Ino}, nil
}

// holdsLease says whether a process has the lease's locked description open. To
// have the file open is not enough: whoever reads it, a backup say, is a stranger.
//
// Nor is the inode enough: its number is free again once the last holder is dead and
// the file replaced, and then the lease of the next worker to be started gets it
// (tried: ext4 gives the lowest). So the file must also have been at the same path.
func holdsLease(pid int, lease FileID, path string, buf *[]byte) bool {
	folder, open, err := descriptors(pid, buf)
	if err != nil {
		return false
	}
	for _, n := range open {
		var st unix.Statx_t
		name := strconv.Itoa(n)
		// DONT_SYNC: a hung network file system must not hang us.
		if unix.Statx(unix.AT_FDCWD, folder+"/fd/"+name, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st) != nil {
			continue
		}
		if st.Ino != lease.Inode || unix.Mkdev(st.Dev_major, st.Dev_minor) != lease.Device {
			continue
		}
		if !wasAt(folder+"/fd/"+name, path) {
			continue
		}
		// Locks of the description are listed since Linux 4.1 (proc_pid_fdinfo(5)).
		info, err := readAll(folder+"/fdinfo/"+name, buf)
		if err == nil && locked(info) {
			return true
		}
	}
	return false
}

// memberByLease is holdsLease, but for a child that we are just starting: until its
// execve closes them, it has copies of all of our descriptors, and with them a lease
// that we made for another worker at the same time.
func memberByLease(pid int, f Family, buf *[]byte) bool {
	if !holdsLease(pid, f.Lease, f.LeasePath, buf) {
		return false
	}
	stat, err := readStat(pid)
	if err != nil || stat.PPID != os.Getpid() || stat.ended() { // of a first thread that ended
		return err == nil
	}
	// Before execve it has our memory, or a copy, and inside execve it has no environment yet.
	return stat.EnvEnd != 0 && stat.EnvEnd != ownEnvEnd()
}

// wasAt says whether the open file that link stands for is, or was before it was
// removed or replaced, at path. Where the folder of either is gone or seen otherwise
// from here, its name must do.
func wasAt(link, path string) bool {
	var target [unix.PathMax]byte
	n, err := unix.Readlink(link, target[:])
	if err != nil {
		return false
	}
	open := strings.TrimSuffix(string(target[:n]), " (deleted)")
	if filepath.Base(open) != filepath.Base(path) {
		return false
	}
	var there, here unix.Stat_t
	if unix.Stat(filepath.Dir(open), &there) != nil || unix.Stat(filepath.Dir(path), &here) != nil {
		return true
	}
	return there.Dev == here.Dev && there.Ino == here.Ino
}

// ownEnvEnd returns field 51 of our own stat, which never changes.
var ownEnvEnd = sync.OnceValue(func() uint64 {
	stat, _ := readStat(os.Getpid())
	return stat.EnvEnd
})

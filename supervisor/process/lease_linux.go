package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/eintr"
	"github.com/core-tools/hsu-master/internal/procfs"
)

// Lease is an open, locked file that an instance and its descendants inherit. The flock belongs to the open file
// description, which they share: it is held until the last of them has died or closed it, regardless of their
// environment. Each lease has an inode of its own, so that it identifies one instance.
type Lease struct {
	id   identity.FileID
	path string
	mu   sync.Mutex
	file *os.File // close-on-exec here; nil after Close
}

// CreateLease makes a new lease file and replaces an earlier one at path, which stays locked for its holders. No
// other caller may use path at the same time. CreateLease returns an error if the file system does not support
// locks.
func CreateLease(path string) (*Lease, error) {
	l, err := createLease(path)
	if err != nil {
		return nil, fmt.Errorf("create lease: %w", err)
	}
	return l, nil
}

func createLease(path string) (_ *Lease, err error) {
	// The name is fixed, so that crashes leave at most one such file. Such a file is
	// removed first, not opened: another process may have inherited its open file description.
	name := path + ".new"
	file, err := newFile(name)
	if errors.Is(err, fs.ErrExist) {
		if err = os.Remove(name); err == nil {
			file, err = newFile(name)
		}
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(name)
		}
	}()
	if _, err := eintr.Retry(func() (int, error) {
		return 0, unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}); err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	id, err := fileID(int(file.Fd()))
	if err != nil {
		return nil, fmt.Errorf("stat %s: %w", name, err)
	}
	if err := crashpoint.Do(crashpoint.Lease, func() error { return os.Rename(name, path) }); err != nil {
		return nil, err
	}
	return &Lease{id: id, path: path, file: file}, nil
}

// newFile is [os.OpenFile] for a new file without the system calls that try to poll it.
func newFile(name string) (*os.File, error) {
	fd, err := eintr.Retry(func() (int, error) {
		return unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// ID returns the lease's identity for a record, by which LeaseHeld can later ask for exactly this lease.
func (l *Lease) ID() identity.FileID { return l.id }

// Path returns the path at which the lease was created.
func (l *Lease) Path() string { return l.path }

// Unlock makes the lease free until Lock, so that a lease whose holder is to be started later is not taken for one that
// is held.
func (l *Lease) Unlock() error { return l.flock(unix.LOCK_UN) }

// Lock makes the lease held again. LeaseHeld locks it for an instant, so Lock tries for a while.
func (l *Lease) Lock() error {
	for deadline := time.Now().Add(lockTime); ; time.Sleep(lockTime / 1000) {
		err := l.flock(unix.LOCK_EX | unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			return err
		}
	}
}

// lockTime is the longest time in which Lock tries.
const lockTime = time.Second

func (l *Lease) flock(how int) error {
	fd, err := l.descriptor()
	if err == nil {
		_, err = eintr.Retry(func() (int, error) { return 0, unix.Flock(int(fd), how) })
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", l.path, err)
	}
	return nil
}

// Close closes this process's descriptor, if there is a lease. The lock stays with the instance.
func (l *Lease) Close() error {
	if l == nil {
		return nil
	}
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

// LeaseID returns the identity of the lease that is at path now.
func LeaseID(path string) (identity.FileID, error) { return procfs.FileID(path) }

// LeaseHeld reports whether any process holds the lease id that was created at path. It returns ErrLeaseUnknown if
// the file is gone or replaced.
func LeaseHeld(path string, id identity.FileID) (bool, error) {
	fd, err := eintr.Retry(func() (int, error) {
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
	// The lock is shared, so that two concurrent calls do not take each other for a holder.
	_, err = eintr.Retry(func() (int, error) { return 0, unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) })
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("%w: lock %s: %w", ErrLeaseUnknown, path, err)
	}
	return false, nil
}

// HoldsLease reports whether a process holds the lease id that was created at path. It returns false if the
// process's descriptors cannot be read.
func HoldsLease(pid int, path string, id identity.FileID) bool {
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	return id != (identity.FileID{}) && holdsLease(pid, id, path, buf)
}

// HoldsLeaseFile reports whether a process holds the lease that is at path now. It returns false if the process's
// descriptors cannot be read.
func HoldsLeaseFile(pid int, path string) bool {
	id, err := LeaseID(path)
	return err == nil && HoldsLease(pid, path, id)
}

func fileID(fd int) (identity.FileID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return identity.FileID{}, err
	}
	return identity.FileID{Device: uint64(st.Dev), Inode: st.Ino}, nil
}

// holdsLease reports whether a process has the lease's locked open file description. Having the file open is not
// enough: a process that only reads it, such as a backup, is not a member.
//
// The inode is not enough either. Its number becomes free once the last holder is dead and the file replaced, and
// the lease of the next worker may get it (tried: ext4 assigns the lowest). So the file must also have been at the
// same path.
func holdsLease(pid int, lease identity.FileID, path string, buf *[]byte) (held bool) {
	err := procfs.EachOpen(pid, lease, buf, func(folder, name string) bool {
		if wasAt(folder+"/fd/"+name, path) {
			// fdinfo lists the locks of the description since Linux 4.1 (proc_pid_fdinfo(5)).
			info, err := procfs.ReadAll(folder+"/fdinfo/"+name, buf)
			held = err == nil && procfs.Locked(info)
		}
		return !held
	})
	return err == nil && held
}

// memberByLease reports whether a process is a member because it holds the lease and shows a second sign of
// membership: a descriptor alone can be passed to a foreign process. Token, cgroup and descent are found in other
// ways. The signs left are the session of the instance, and its user together with a later start.
func memberByLease(pid int, f Family, buf *[]byte) bool {
	stat, ok := keepsLease(pid, f, buf)
	if !ok {
		return false
	}
	if f.Session != 0 && stat.SID == f.Session {
		return true
	}
	uid, err := procfs.RealUID(pid, buf)
	return err == nil && uid == f.UID && stat.StartTicks >= f.StartTicks
}

// keepsLease is like holdsLease, but excludes a child that this process is just starting: until its execve closes
// them, the child has copies of all descriptors of this process, including a lease made for another worker at the
// same time.
func keepsLease(pid int, f Family, buf *[]byte) (procfs.Stat, bool) {
	if !holdsLease(pid, f.Lease, f.LeasePath, buf) {
		return procfs.Stat{}, false
	}
	stat, err := procfs.ReadStat(pid)
	if err != nil {
		return stat, false
	}
	return stat, stat.Ended() || procfs.HasOwnEnviron(stat) // a first thread may have ended before the others
}

// strangerError names a process that holds the lease and is not known to be a member. It matches ErrLeaseHeld.
type strangerError struct {
	pid int
	uid uint32
}

func (e *strangerError) Error() string {
	return fmt.Sprintf("the lease is held by process %d of user %d, which is not known to belong to the worker: "+
		"end that process", e.pid, e.uid)
}

func (e *strangerError) Is(target error) bool { return target == ErrLeaseHeld }

// stranger returns a [*strangerError] if a process that holds the lease of a family without members can be found.
func (f Family) stranger(c *census) error {
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	for _, pid := range c.openers(f.Lease) {
		if _, ok := keepsLease(pid, f, buf); !ok {
			continue
		}
		if uid, err := procfs.RealUID(pid, buf); err == nil {
			return &strangerError{pid, uid}
		}
	}
	return nil
}

// wasAt reports whether the open file behind link is, or was before it was removed or replaced, at path. If the
// folder of either path cannot be read from here, comparing the base names must be enough.
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

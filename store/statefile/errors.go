package statefile

import (
	"errors"
	"fmt"
	"syscall"
)

// ErrLocked means that another process holds the lock.
var ErrLocked = errors.New("held by another process")

// DamagedError means that a file of the state, or a backup, is damaged. The file was left unchanged.
type DamagedError struct {
	Path   string
	Err    error
	Backup bool // the file is a backup named by the user, not part of the state
}

func (e *DamagedError) Error() string {
	if e.Backup {
		return fmt.Sprintf("backup %s is damaged: %v: nothing was changed; use another one", e.Path, e.Err)
	}
	return fmt.Sprintf("state file %s is damaged: %v: it was left as it is; "+
		"put a backup in its place, or have it recovered", e.Path, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// Cause returns the underlying error of a DamagedError, which does not include the path. It returns any other error
// unchanged.
func Cause(err error) error {
	if d, ok := errors.AsType[*DamagedError](err); ok {
		return d.Err
	}
	return err
}

// Remedy returns the remedy for an operating-system error that keeps a file from being written but may go away. For
// other errors it returns "".
func Remedy(err error) string {
	for _, r := range []struct {
		errno  syscall.Errno
		remedy string
	}{
		{syscall.ENOSPC, "free some space there"},
		{syscall.EDQUOT, "free some space there, or raise the quota"},
		{syscall.EFBIG, "raise the limit on the size of files"},
		{syscall.EROFS, "mount its file system for writing"},
		{syscall.EIO, "look after the disk"},
		{syscall.EACCES, "let the master's user write there"},
		{syscall.EPERM, "let the master's user write there"},
		{syscall.EMFILE, "raise the limit on open files"},
		{syscall.ENFILE, "raise the system's limit on open files"},
		{syscall.ENOMEM, "free some memory"},
	} {
		if errors.Is(err, r.errno) {
			return r.remedy
		}
	}
	return ""
}

// IsTemporary reports whether err is a temporary error of the machine that does not concern the file itself.
// Continuing without the file would discard it for no reason.
func IsTemporary(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

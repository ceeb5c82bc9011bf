package store

import (
	"errors"
	"fmt"
	"syscall"
)

var (
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("the state is closed")

	// ErrUnavailable means that nothing can be made durable at the moment; the
	// cause (a full disk, a failed fsync) is wrapped beside it. What failed with
	// it was not acknowledged, and service resumes by itself when the cause goes.
	ErrUnavailable = errors.New("the state cannot be written")
)

// LockedError means that another master holds the state.
type LockedError struct {
	Path string // the state directory
	PID  int    // of the holder, 0 where it is not known
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("another master holds the state in %s: stop it, or use another state directory", e.Path)
	}
	return fmt.Sprintf("another master (pid %d) holds the state in %s: stop it, or use another state directory", e.PID, e.Path)
}

// DamagedError means that a file of the state, or a backup, cannot be trusted. The
// file was left as it is.
type DamagedError struct {
	Path   string
	Err    error
	Backup bool // it is a file that was named to go on from, and none of the state
}

func (e *DamagedError) Error() string {
	if e.Backup {
		return fmt.Sprintf("backup %s is damaged: %v: nothing was changed; use another one", e.Path, e.Err)
	}
	return fmt.Sprintf("state file %s is damaged: %v: it was left as it is; put a backup in its place, or have it recovered", e.Path, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// NewerSchemaError means that a newer release wrote the database.
type NewerSchemaError struct {
	Path         string
	Found, Known uint64
}

func (e *NewerSchemaError) Error() string {
	return fmt.Sprintf("state file %s has schema version %d, this program knows up to %d: use the release that wrote it, or a newer one", e.Path, e.Found, e.Known)
}

// remedy says what to do about an error of the operating system that keeps the state
// from being written and that can go away; else it is empty.
func remedy(err error) string {
	for _, r := range []struct {
		errno syscall.Errno
		what  string
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
			return r.what
		}
	}
	return ""
}

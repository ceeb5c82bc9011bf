package store

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// mapSize is zero: Windows would make the file as large as its mapping.
const mapSize = 0

// lockOffset lies far behind the content: a locked range cannot be read by
// others, who shall see the PID in master.lock.
const lockOffset = 1 << 30

func lockRange() *windows.Overlapped { return &windows.Overlapped{Offset: lockOffset} }

// tryLock takes the lock on f without waiting.
func tryLock(f *os.File, exclusive bool) error {
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if exclusive {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, lockRange())
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return errLocked
	}
	return err
}

// deleted: an open file cannot be.
func deleted(*os.File) (bool, error) { return false, nil }

func unlock(f *os.File) error {
	return windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, lockRange())
}

// dirID returns what identifies the directory on this machine.
func dirID(dir string) (FileID, error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return FileID{}, err
	}
	h, err := windows.CreateFile(path, 0, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE,
		nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
	if err != nil {
		return FileID{}, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer func() { _ = windows.CloseHandle(h) }()
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &info); err != nil {
		return FileID{}, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	return FileID{
		Device: uint64(info.VolumeSerialNumber),
		Inode:  uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow),
	}, nil
}

// syncDir does nothing: NTFS keeps its directories in a journal of its own.
func syncDir(string) error { return nil }

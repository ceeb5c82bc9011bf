package store

import (
	"github.com/core-tools/hsu-master/store/commit"
	"github.com/core-tools/hsu-master/store/once"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

// What callers of DB must know is declared by the packages that it comes from, which only this package may import.
var (
	// ErrClosed is returned by every call after Close.
	ErrClosed = commit.ErrClosed

	// ErrUnavailable means that nothing can be made durable at the moment. The cause (a full disk, a failed fsync)
	// is wrapped beside it. An operation that fails with it was not acknowledged. Service resumes by itself when
	// the cause goes away.
	ErrUnavailable = commit.ErrUnavailable

	// ErrDuplicate is the error that CountOnce reports for a request that was counted before. The result of that
	// request is in [DB.Result].
	ErrDuplicate = once.ErrDuplicate
)

type (
	// DamagedError means that a file of the state, or a backup, is damaged. The file was left unchanged.
	DamagedError = statefile.DamagedError

	// LockedError means that another master holds the state.
	LockedError = statedir.LockedError

	// Counted is notified of the outcome of a count.
	Counted = once.Counted
)

package commit

import (
	"errors"
	"fmt"

	"github.com/core-tools/hsu-master/store/statefile"
)

var (
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("the state is closed")

	// ErrUnavailable means that nothing can be made durable at the moment. The cause (a full disk, a failed fsync)
	// is wrapped beside it. An operation that fails with it was not acknowledged. Service resumes by itself when
	// the cause goes away.
	ErrUnavailable = errors.New("the state cannot be written")
)

// unavailable returns an ErrUnavailable with its cause and, if there is one, the remedy.
func unavailable(cause error) error {
	if cause == nil {
		return ErrUnavailable
	}
	if remedy := statefile.Remedy(cause); remedy != "" {
		return fmt.Errorf("%w: %w: %s, and service resumes by itself", ErrUnavailable, cause, remedy)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, cause)
}

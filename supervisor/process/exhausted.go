package process

import (
	"errors"
	"slices"
	"syscall"
)

// ExhaustedErrors are the errors that the kernel returns if the machine, or a limit on this process, is the cause:
// memory, descriptors, processes or disk space are used up, or the disk fails.
var ExhaustedErrors = []syscall.Errno{
	syscall.EAGAIN, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS,
	syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO,
}

// Exhausted reports whether err is one of [ExhaustedErrors], so that it says nothing about the process or endpoint
// that the failed call was about.
func Exhausted(err error) bool {
	return slices.ContainsFunc(ExhaustedErrors, func(errno syscall.Errno) bool { return errors.Is(err, errno) })
}

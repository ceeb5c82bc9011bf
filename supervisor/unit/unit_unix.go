//go:build unix

package unit

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

func isExecutable(info fs.FileInfo) bool { return info.Mode().Perm()&0o111 != 0 }

// SignalNumber returns the signal with a name such as TERM, 0 if there is none.
func SignalNumber(name string) syscall.Signal { return unix.SignalNum("SIG" + name) }

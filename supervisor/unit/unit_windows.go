package unit

import (
	"io/fs"
	"syscall"
)

// isExecutable reports whether the file is regular. Windows decides by the extension when it starts the file.
func isExecutable(info fs.FileInfo) bool { return info.Mode().IsRegular() }

// SignalNumber returns 0, the default, because Windows has no signals.
func SignalNumber(string) syscall.Signal { return 0 }

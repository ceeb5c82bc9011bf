//go:build unix

package main

import (
	"fmt"
	"io"
	"syscall"
)

// isJournal reports whether w is the journal stream that systemd has set up; stream is its "device:inode" from
// $JOURNAL_STREAM (systemd.exec(5)). The variable alone is not sufficient: a process that inherits it may write
// elsewhere.
func isJournal(w io.Writer, stream string) bool {
	f := asFile(w)
	if f == nil || stream == "" {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && fmt.Sprintf("%d:%d", stat.Dev, stat.Ino) == stream
}

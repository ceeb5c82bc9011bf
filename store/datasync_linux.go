package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync makes the content of f durable, but not its times: for a file that
// is only ever overwritten that saves a commit of the file system's journal.
func datasync(f *os.File) error {
	return control(f, unix.Fdatasync)
}

package statefile

import (
	"os"

	"golang.org/x/sys/unix"
)

// Datasync makes the content of f durable, but not its times. For a file that is only ever overwritten, this saves
// a commit of the file system's journal.
func Datasync(f *os.File) error {
	return Control(f, unix.Fdatasync)
}

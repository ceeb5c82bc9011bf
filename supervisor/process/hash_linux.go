package process

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func versionOf(file *os.File) (fileVersion, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return fileVersion{}, fmt.Errorf("stat %s: %w", file.Name(), err)
	}
	return fileVersion{
		device: uint64(st.Dev), inode: st.Ino, size: st.Size,
		modified: st.Mtim.Nano(), status: st.Ctim.Nano(),
	}, nil
}

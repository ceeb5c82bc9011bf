package executable

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
	return versionIn(&st), nil
}

func versionAt(path string) (fileVersion, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fileVersion{}, fmt.Errorf("stat %s: %w", path, err)
	}
	return versionIn(&st), nil
}

func versionIn(st *unix.Stat_t) fileVersion {
	return fileVersion{
		device: uint64(st.Dev), inode: st.Ino, size: st.Size,
		modified: st.Mtim.Nano(), status: st.Ctim.Nano(),
	}
}

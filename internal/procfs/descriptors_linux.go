package procfs

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/eintr"
)

// Descriptors returns a process's open descriptors, and the folder that contains fd/N and fdinfo/N. If the first
// thread has ended, and so has no descriptors, they are those of a living thread.
func Descriptors(pid int, buf *[]byte) (folder string, open []int, err error) {
	folder = "/proc/" + strconv.Itoa(pid)
	open, err = Numbers(folder+"/fd", buf)
	if err != nil && !Denied(err) || len(open) > 0 {
		return folder, open, err
	}
	tid, threadErr := LivingThread(pid)
	if threadErr != nil || tid == pid {
		return folder, nil, err
	}
	folder += "/task/" + strconv.Itoa(tid)
	open, err = Numbers(folder+"/fd", buf)
	return folder, open, err
}

// EachOpen calls visit with each descriptor of a process that has a file open, until visit returns false:
// folder/fd/name is the file, folder/fdinfo/name its description. It fails if the descriptors cannot be read.
func EachOpen(pid int, file identity.FileID, buf *[]byte, visit func(folder, name string) bool) error {
	folder, open, err := Descriptors(pid, buf)
	if err != nil {
		return err
	}
	for _, n := range open {
		name := strconv.Itoa(n)
		if id, _, ok := FileBehind(folder + "/fd/" + name); ok && id == file && !visit(folder, name) {
			return nil
		}
	}
	return nil
}

// FileBehind returns the file behind a descriptor in /proc, and reports whether it is a regular one.
func FileBehind(link string) (id identity.FileID, regular, ok bool) {
	var st unix.Statx_t
	// DONT_SYNC: a hung network file system must not block this process.
	const mask = unix.STATX_INO | unix.STATX_TYPE
	if unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC, mask, &st) != nil {
		return identity.FileID{}, false, false
	}
	id = identity.FileID{Device: unix.Mkdev(st.Dev_major, st.Dev_minor), Inode: st.Ino}
	return id, st.Mode&unix.S_IFMT == unix.S_IFREG, true
}

// FileID returns the identity of the file that is at path now.
func FileID(path string) (identity.FileID, error) {
	var st unix.Stat_t
	if _, err := eintr.Retry(func() (int, error) { return 0, unix.Stat(path, &st) }); err != nil {
		return identity.FileID{}, fmt.Errorf("stat %s: %w", path, err)
	}
	return identity.FileID{Device: uint64(st.Dev), Inode: st.Ino}, nil
}

package process

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
)

// AppendsOnly reports whether every descriptor with which a living member may write to the file at path has O_APPEND. A
// member that opens the file at this moment may be missed.
func (f Family) AppendsOnly(ctx context.Context, path string) (bool, error) {
	only, err := f.appendsOnly(ctx, path)
	if err != nil {
		return false, fmt.Errorf("look for writers of %s: %w", path, err)
	}
	return only, nil
}

func (f Family) appendsOnly(ctx context.Context, path string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return false, err
	}
	c, err := shared.Answer(ctx)
	if err != nil {
		return false, err
	}
	file := identity.FileID{Device: uint64(st.Dev), Inode: st.Ino}
	for _, member := range f.find(c, f.leaseMayBeHeld()) {
		if only, err := memberAppends(member.pid, file); err != nil || !only {
			return false, err
		}
	}
	return true, nil
}

// memberAppends is AppendsOnly for one process. A process that has ended writes nothing, nor does a descriptor that was
// closed.
func memberAppends(pid int, file identity.FileID) (only bool, err error) {
	gone := func(err error) bool { return err == unix.ENOENT || err == unix.ESRCH } //nolint:errorlint // bare errnos
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	only = true
	err = procfs.EachOpen(pid, file, buf, func(folder, name string) bool {
		info, err := procfs.ReadAll(folder+"/fdinfo/"+name, buf)
		if !gone(err) {
			only = err == nil && !procfs.WritesAnywhere(info)
		}
		return only
	})
	if gone(err) {
		err = nil
	}
	return only, err
}

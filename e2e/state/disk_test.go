//go:build e2e && linux

package state

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// File systems for single tests, which can be filled, cut off and restored.

// disk is a small file system with the state directory of a host on it.
type disk struct {
	t      *testing.T
	dir    string
	filler string
	loop   *os.File // nil without a device
}

// onTmpfs puts the state directory on a tmpfs of kib KiB.
func onTmpfs(h *harness.Host, kib int) *disk {
	h.T.Helper()
	d := newDisk(h, "disk")
	d.mount("tmpfs", "tmpfs", 0, fmt.Sprintf("size=%dk", kib))
	return d
}

// onExt4 puts the state directory on an ext4 file system of mib MiB on a loop device of the file image (if empty, a
// new file), with options for mkfs.
func onExt4(h *harness.Host, mib int64, image, mountOptions string, mkfs ...string) *disk {
	h.T.Helper()
	d := newDisk(h, "disk")
	image = cmp.Or(image, filepath.Join(h.Dir, "image"))
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(mib<<20), f.Close())
	}
	if err != nil {
		h.T.Fatal(err)
	}
	// No blocks are reserved for root, because the master is root here.
	args := append([]string{"-q", "-m", "0", "-E", "lazy_itable_init=0,nodiscard"}, mkfs...)
	if out, err := exec.Command("mkfs.ext4", append(args, image)...).CombinedOutput(); err != nil {
		h.T.Fatalf("mkfs.ext4 (of e2fsprogs): %v\n%s", err, out)
	}
	d.loop = attach(h.T, image)
	d.mount(d.loop.Name(), "ext4", 0, mountOptions)
	return d
}

// newDisk creates a mount point, which is unmounted and removed when the test ends.
func newDisk(h *harness.Host, name string) *disk {
	h.T.Helper()
	if !harness.CanMount() {
		harness.SkipOutsideCI(h.T, "only root can mount")
	}
	d := &disk{t: h.T, dir: filepath.Join(h.Dir, name)}
	d.filler = filepath.Join(d.dir, "filler")
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		h.T.Fatal(err)
	}
	h.State = filepath.Join(d.dir, "state")
	return d
}

func (d *disk) mount(source, kind string, flags uintptr, options string) {
	d.t.Helper()
	if err := unix.Mount(source, d.dir, kind, flags, options); err != nil {
		d.t.Fatalf("mount %s (%s) on %s: %v", kind, options, d.dir, err)
	}
}

// unmount returns when it has unmounted the disk, which is not possible while a process uses it: a master that tries
// again and again to start a worker there has files open for moments.
func (d *disk) unmount() {
	d.t.Helper()
	harness.WaitFor(d.t, "the disk can be unmounted", func() error {
		err := unix.Unmount(d.dir, 0)
		if err != nil && !errors.Is(err, unix.EBUSY) {
			d.t.Fatal(err)
		}
		return err
	})
}

// attach creates a loop device of the file, which exists as long as it is in use.
func attach(t *testing.T, image string) *os.File {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = control.Close() }()
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }() // the device has its own descriptor
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatalf("find a free loop device: %v", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			t.Cleanup(func() { _ = loop.Close() })
			return loop
		}
		_ = loop.Close()
		if !errors.Is(err, unix.EBUSY) { // another test has taken the device
			t.Fatalf("attach %s to %s: %v", image, loop.Name(), err)
		}
	}
}

// cutOff makes the device end after mib MiB: access beyond that gives EIO, also for open files. 0 restores it.
func (d *disk) cutOff(mib uint64) {
	d.t.Helper()
	info, err := unix.IoctlLoopGetStatus64(int(d.loop.Fd()))
	if err == nil {
		info.Sizelimit = mib << 20
		err = unix.IoctlLoopSetStatus64(int(d.loop.Fd()), info)
	}
	if err != nil {
		d.t.Fatalf("limit %s to %d MiB: %v", d.loop.Name(), mib, err)
	}
}

// trim discards the free blocks of the disk, so that their next use needs new space in the storage below.
func (d *disk) trim() {
	d.t.Helper()
	if out, err := exec.Command("fstrim", d.dir).CombinedOutput(); err != nil {
		d.t.Fatalf("fstrim (of util-linux): %v\n%s", err, out)
	}
}

// fill fills the disk completely.
func (d *disk) fill() { fillUp(d.t, d.filler) }

// free frees the space again.
func (d *disk) free() {
	d.t.Helper()
	if err := os.Remove(d.filler); err != nil {
		d.t.Fatal(err)
	}
}

func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for chunk := bytes.Repeat([]byte("."), 64<<10); len(chunk) > 0; chunk = chunk[:len(chunk)/2] {
		for err = nil; err == nil; {
			var n int
			if n, err = f.Write(chunk); err == nil && n < len(chunk) {
				err = io.ErrShortWrite
			}
		}
		// The file system may not have space for data that it has accepted.
		err = errors.Join(err, f.Sync())
	}
	_ = f.Close()
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the disk up: %v", err)
	}
}

//go:build e2e && linux

package e2e

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// File systems of the tests' own, that can be filled up, cut off and brought back.

// mountsEnv tells that this process has mounts of its own already.
const mountsEnv = "HSU_E2E_MOUNTS"

// ownMounts gives this process a view of the mounts that nobody else has, so that
// what a test mounts ends with the last process of the tests, however that ends. A
// namespace belongs to a thread, so the program starts anew from the one that has
// it. Who may not do that runs on, without the tests that mount.
func ownMounts() error {
	if os.Getenv(mountsEnv) != "" {
		return nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	if err := os.Setenv(mountsEnv, "own"); err != nil {
		return err
	}
	return fmt.Errorf("start anew: %w", unix.Exec("/proc/self/exe", os.Args, os.Environ()))
}

// unmountBelow takes away what is mounted below dir, in use or not.
func unmountBelow(dir string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	for _, line := range slices.Backward(strings.Split(string(text), "\n")) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			errs = append(errs, unix.Unmount(fields[4], unix.MNT_DETACH))
		}
	}
	return errors.Join(errs...)
}

// disk is a small file system with the state folder of a host on it.
type disk struct {
	t      *testing.T
	dir    string
	filler string
	loop   *os.File // nil where there is no device
}

// onTmpfs puts the state folder on a file system of so many KiB in memory.
func (h *host) onTmpfs(kib int) *disk {
	h.t.Helper()
	d := h.disk("disk")
	d.mount("tmpfs", "tmpfs", 0, fmt.Sprintf("size=%dk", kib))
	return d
}

// onExt4 puts the state folder on a file system of so many MiB on a device that is
// the file image, empty for one of the test's own, with options of mkfs.
func (h *host) onExt4(mib int64, image, mountOptions string, mkfs ...string) *disk {
	h.t.Helper()
	d := h.disk("disk")
	image = cmp.Or(image, filepath.Join(h.dir, "image"))
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(mib<<20), f.Close())
	}
	if err != nil {
		h.t.Fatal(err)
	}
	// No block is kept for root: the master is root here.
	args := append([]string{"-q", "-m", "0", "-E", "lazy_itable_init=0,nodiscard"}, mkfs...)
	if out, err := exec.Command("mkfs.ext4", append(args, image)...).CombinedOutput(); err != nil {
		h.t.Fatalf("mkfs.ext4 (of e2fsprogs): %v\n%s", err, out)
	}
	d.loop = attach(h.t, image)
	d.mount(d.loop.Name(), "ext4", 0, mountOptions)
	return d
}

// disk makes the place of one, and has it taken away when nothing uses it any more.
func (h *host) disk(name string) *disk {
	h.t.Helper()
	if os.Getenv(mountsEnv) == "" {
		lacking(h.t, "only root can mount")
	}
	d := &disk{t: h.t, dir: filepath.Join(h.dir, name)}
	d.filler = filepath.Join(d.dir, "filler")
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	h.state = filepath.Join(d.dir, "state")
	return d
}

func (d *disk) mount(source, kind string, flags uintptr, options string) {
	d.t.Helper()
	if err := unix.Mount(source, d.dir, kind, flags, options); err != nil {
		d.t.Fatalf("mount %s (%s) on %s: %v", kind, options, d.dir, err)
	}
}

func (d *disk) unmount() {
	d.t.Helper()
	if err := unix.Unmount(d.dir, 0); err != nil {
		d.t.Fatal(err)
	}
}

// attach makes a block device of the file, for as long as anybody uses it.
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
	defer func() { _ = file.Close() }() // the device has its own
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
		if !errors.Is(err, unix.EBUSY) { // another test was faster
			t.Fatalf("attach %s to %s: %v", image, loop.Name(), err)
		}
	}
}

// cutOff lets the device end after so many MiB: what lies beyond is an EIO, also
// for files that are open. 0 brings it back as it was.
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

// trim has what is below the disk forget what is free on it: the next use of that takes
// new space there.
func (d *disk) trim() {
	d.t.Helper()
	if out, err := exec.Command("fstrim", d.dir).CombinedOutput(); err != nil {
		d.t.Fatalf("fstrim (of util-linux): %v\n%s", err, out)
	}
}

// fill leaves no byte on the disk.
func (d *disk) fill() { fillUp(d.t, d.filler) }

// free gives the space back.
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
		// What a file system promised to find a place for may not have one.
		err = errors.Join(err, f.Sync())
	}
	_ = f.Close()
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the disk up: %v", err)
	}
}

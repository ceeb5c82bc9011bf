package rotate

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// method is the operation that frees the lines of a log on a file system.
type method int

const (
	collapses method = iota
	punches
	truncates
)

// onFileSystems runs a test on each file system that can be mounted here.
func onFileSystems(t *testing.T, test func(t *testing.T, dir string, frees method)) {
	for _, fs := range []struct {
		name  string
		frees method
		mount func(t *testing.T) string
	}{
		{"tmpfs", punches, func(t *testing.T) string { return mountMemory(t, "tmpfs", "size=256m") }},
		{"ramfs", truncates, func(t *testing.T) string { return mountMemory(t, "ramfs", "") }},
		{"ext4", collapses, func(t *testing.T) string { return mountImage(t, "ext4", "-q", "-F") }},
		{"xfs", collapses, func(t *testing.T) string { return mountImage(t, "xfs", "-q") }},
		{"btrfs", punches, func(t *testing.T) string { return mountImage(t, "btrfs", "-q") }},
		{"overlay", collapses, func(t *testing.T) string { return mountOverlay(t, mountImage(t, "ext4", "-q", "-F")) }},
	} {
		t.Run(fs.name, func(t *testing.T) { test(t, fs.mount(t), fs.frees) })
	}
}

// mountMemory mounts a file system in memory. Without the right to mount it uses the tmpfs of the machine.
func mountMemory(t *testing.T, kind, options string) string {
	dir := t.TempDir()
	err := unix.Mount(kind, dir, kind, 0, options)
	if errors.Is(err, unix.EPERM) && kind == "tmpfs" {
		dir, err = os.MkdirTemp("/dev/shm", "rotate") //nolint:usetesting // in that file system
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		return dir
	}
	mounted(t, dir, err)
	return dir
}

// mountImage makes a file system in a file and mounts it. The file has the name of the folder and ".image".
func mountImage(t *testing.T, kind string, options ...string) string {
	mkfs, err := exec.LookPath("mkfs." + kind)
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err) // .ci/run installs it
	}
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	image := dir + ".image"
	t.Cleanup(func() { _ = os.Remove(image) })
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 512<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, append(options, image)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", mkfs, err, out)
	}
	mounted(t, dir, mountLoop(kind, image, dir))
	return dir
}

func mountLoop(kind, image, dir string) error {
	out, err := exec.Command("mount", "-o", "loop", "-t", kind, image, dir).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return err
}

// awaitDetached waits until no loop device has the image after it was unmounted. The kernel detaches the device a
// little later, and a mount meanwhile would reuse it and get I/O errors then.
func awaitDetached(t *testing.T, image string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		devices, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(devices, func(name string) bool {
			backing, _ := os.ReadFile(name) // it may be detached just now
			return strings.TrimSuffix(string(backing), "\n") == image
		}) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still attached to a loop device", image)
		}
	}
}

func mountOverlay(t *testing.T, base string) string {
	for _, name := range []string{"lower", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(base, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	options := "lowerdir=" + base + "/lower,upperdir=" + base + "/upper,workdir=" + base + "/work"
	mounted(t, dir, unix.Mount("overlay", dir, "overlay", 0, options))
	return dir
}

// mounted unmounts dir at the end of the test, and skips it if mounting failed.
func mounted(t *testing.T, dir string, err error) {
	if err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
}

//go:build unix

package api

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListenRegistry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.sock")
	l, err := ListenRegistry(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("the socket is %v, %v, want one for every user", info, err)
	}
	if _, err := ListenRegistry(t.Context(), path); err == nil || !strings.Contains(err.Error(), "another master") {
		t.Errorf("a socket that is served: %v, want it refused", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the socket of the first is lost: %v", err)
	} else {
		c.Close()
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket remains in a folder of this user")
	}
}

// In a sticky folder the socket remains, and is replaced by the next master of the same user.
func TestListenRegistryInAStickyFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "registry.sock")
	for range 2 {
		l, err := ListenRegistry(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("everyone can take the name: %v", err)
		}
	}
}

func TestListenRegistryWhereOthersCanReplaceIt(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "registry.sock")
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenRegistry(t.Context(), path); err == nil || !strings.Contains(err.Error(), "can change "+dir) {
		t.Errorf("a folder of everyone: %v", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket was made")
	}
	if err := os.Chmod(dir, 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenRegistry(t.Context(), dir+"/missing/s"); err == nil {
		t.Error("a folder that does not exist")
	}
	if os.Geteuid() != 0 {
		return // the rest needs a file of another user
	}
	const nobody = 65534
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Lchown(path, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenRegistry(t.Context(), path); err == nil ||
		!strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("a socket that another user has made first: %v", err)
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenRegistry(t.Context(), path); err == nil || !strings.Contains(err.Error(), "owner 65534") {
		t.Errorf("a folder of another user: %v", err)
	}
}

//go:build e2e && linux

package harness

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Versions of the masters that replace each other.
const (
	OldVersion = "v1.0.0"
	NewVersion = "v2.0.0"
)

var built sync.Map // version → func() error

// MasterOf returns the path of a master of that version.
func MasterOf(t *testing.T, version string) string {
	t.Helper()
	path := filepath.Join(Programs.Dir, "hsu-master-"+version)
	once, _ := built.LoadOrStore(version, sync.OnceValue(func() error { return BuildMaster(path, version) }))
	if err := once.(func() error)(); err != nil {
		t.Fatal(err)
	}
	return path
}

// Install makes the program at path a copy of another, with more bytes at its end, as package managers do.
func Install(t *testing.T, path, from, more string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = WriteProgram(path+".new", append(content, more...))
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// InstallMaster replaces the host's master, which is a copy in its folder from then on.
func (h *Host) InstallMaster(from string) {
	h.T.Helper()
	h.Program = filepath.Join(h.Dir, "hsu-master")
	Install(h.T, h.Program, from, "")
}

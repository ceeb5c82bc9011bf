package cgroup

import (
	"errors"
	"io/fs"
	"testing"
)

func TestFolders(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"", ".", "..", "a/b", "/a"} {
		if _, err := Create(dir, name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Create of %q: %v, want it refused", name, err)
		}
	}
	path, err := Create(dir, "worker-0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir, "worker-0"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create of one that exists: %v", err)
	}
	if _, err := Create(path, "below"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(path); err != nil {
			t.Errorf("Remove: %v", err)
		}
	}
}

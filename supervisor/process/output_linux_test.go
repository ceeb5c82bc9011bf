package process

import (
	"os"
	"path/filepath"
	"testing"
)

func TestOutputLost(t *testing.T) {
	for name, test := range map[string]struct {
		change func(t *testing.T, path string) error
		want   bool
	}{
		"in place": {func(*testing.T, string) error { return nil }, false},
		"deleted":  {func(_ *testing.T, path string) error { return os.Remove(path) }, true},
		"moved":    {func(_ *testing.T, path string) error { return os.Rename(path, path+".1") }, true},
		"deleted and made again": {func(_ *testing.T, path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.WriteFile(path, nil, 0o600)
		}, true},
		"another file of the folder": {func(_ *testing.T, path string) error {
			return os.Rename(path, filepath.Join(filepath.Dir(path), "other.log"))
		}, false},
		"another folder": {func(t *testing.T, path string) error {
			return os.Rename(path, filepath.Join(t.TempDir(), "w.log"))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			link := filepath.Join(t.TempDir(), "logs")
			if err := os.Symlink(dir, link); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(link, "w.log")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			if err := test.change(t, path); err != nil {
				t.Fatal(err)
			}
			if got := lost(os.Getpid(), int(f.Fd()), path); got != test.want {
				t.Errorf("lost = %t, want %t", got, test.want)
			}
		})
	}
	if lost(os.Getpid(), 1<<20, "/dev/null") {
		t.Error("a closed descriptor is reported")
	}
}

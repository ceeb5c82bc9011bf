package statefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestLeadsTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write := func() {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write()
	mine, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if is, err := LeadsTo(path, mine); err != nil || !is {
		t.Errorf("in place: %t, %v", is, err)
	}
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	if is, err := LeadsTo(path, mine); is || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("moved: %t, %v", is, err)
	}
	write()
	if is, err := LeadsTo(path, mine); err != nil || is {
		t.Errorf("replaced: %t, %v", is, err)
	}
}

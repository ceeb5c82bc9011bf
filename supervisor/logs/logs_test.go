package logs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What a worker wrote with another environment is not among its last lines.
func TestMarkChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "worker.log")
	if err := MarkChange(path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a log without a worker: %v", err)
	}
	for _, step := range []struct {
		written string
		marked  bool
		want    []string
	}{
		{"", true, nil}, // nothing to mark
		{"first\n", false, []string{"first"}},
		{"second, cut", true, nil},
		{"third\nfourth\n", false, []string{"third", "fourth"}},
		{"", true, nil},
		{"fifth\n", false, []string{"fifth"}},
	} {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = f.WriteString(step.written)
			err = errors.Join(err, f.Close())
		}
		if err == nil && step.marked {
			err = MarkChange(path)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := Tail(path); !slices.Equal(got, step.want) {
			t.Errorf("after %q the last lines are %q, want %q", step.written, got, step.want)
		}
	}
}

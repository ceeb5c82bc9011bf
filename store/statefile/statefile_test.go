package statefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

const point = crashpoint.Point("file")

var errStop = errors.New("stop")

// Wherever a replacement is interrupted, the path has the whole old or the whole new content.
func TestReplaceLeavesAWholeFile(t *testing.T) {
	var moments []string
	record := Ops{At: func(moment string) error { moments = append(moments, moment); return nil }}
	replace := func(ops Ops, path string) error {
		return ops.Replace(point, path, func(f *os.File) error {
			_, err := io.WriteString(f, "new")
			return err
		})
	}
	if err := replace(record, filepath.Join(t.TempDir(), "x")); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"file-write", "after-file-write", "file-sync", "after-file-sync", "file-rename", "after-file-rename",
		"file-sync-folder", "after-file-sync-folder",
	}
	if !slices.Equal(moments, want) {
		t.Errorf("moments %v, want %v", moments, want)
	}
	for i, stop := range want {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := replace(Ops{At: func(moment string) error {
			if moment == stop {
				return errStop
			}
			return nil
		}}, path)
		content := "old"
		if i > slices.Index(want, "file-rename") {
			content = "new"
		}
		b, readErr := os.ReadFile(path)
		if !errors.Is(err, errStop) || readErr != nil || string(b) != content {
			t.Errorf("stopped at %s: %v; the file has %q, %v", stop, err, b, readErr)
		}
		if _, err := os.Lstat(path + TempSuffix); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("stopped at %s: the temporary file is left: %v", stop, err)
		}
	}
}

func TestPlacedFileMustPassItsCheck(t *testing.T) {
	dir := t.TempDir()
	path, temp := filepath.Join(dir, "x"), filepath.Join(dir, "temp")
	elsewhere := filepath.Join(dir, "elsewhere")
	if err := errors.Join(os.WriteFile(elsewhere, []byte("other"), 0o600), os.Symlink(elsewhere, temp)); err != nil {
		t.Fatal(err)
	}
	err := Ops{}.Place(point, temp, func(f *os.File) (string, error) {
		_, err := io.WriteString(f, "new")
		return path, err
	}, func(*os.File) error { return errStop })
	entries, readErr := os.ReadDir(dir)
	if !errors.Is(err, errStop) || readErr != nil || len(entries) != 1 {
		t.Errorf("%v; the folder has %v, %v", err, entries, readErr)
	}
	if b, err := os.ReadFile(elsewhere); err != nil || string(b) != "other" {
		t.Errorf("the target of a link was written: %q, %v", b, err)
	}
}

// Of the damaged files, the first and the newest are kept.
func TestKeepAsideKeepsTheFirstAndTheNewest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	log := slog.New(slog.DiscardHandler)
	for i := range MaxAside + 5 {
		if err := os.WriteFile(path, fmt.Append(nil, i), 0o600); err != nil {
			t.Fatal(err)
		}
		aside, err := Ops{}.KeepAside(path, errStop, log)
		if err != nil || !strings.HasPrefix(aside, path+DamagedInfix) {
			t.Fatal(aside, err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("the file is still there: %v", err)
		}
	}
	kept, err := ListAside(path, DamagedInfix)
	if err != nil || len(kept) != MaxAside {
		t.Fatalf("kept %v, %v", kept, err)
	}
	var got []string
	for _, name := range kept {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(b))
	}
	if want := []string{"0", "6", "7", "8", "9", "10", "11", "12"}; !slices.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
}

func TestOnlyARegularFileIsRead(t *testing.T) {
	var damaged *DamagedError
	if _, err := ReadFile(t.TempDir(), 10); !errors.As(err, &damaged) {
		t.Errorf("a folder: %v", err)
	}
	path := filepath.Join(t.TempDir(), "x")
	if _, err := ReadFile(path, 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile(path, 4); err != nil || string(b) != "cont" {
		t.Errorf("%q, %v", b, err)
	}
}

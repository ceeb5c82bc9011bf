//go:build unix

package safefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const nobody = 65534

// TestCheck changes one property of a path that belongs to root, and expects the error to name that component.
func TestCheck(t *testing.T) {
	if !asRoot() {
		t.Skip("only root is in danger")
	}
	// The path of each case is DIR/a/b/w; DIR/c/link leads to DIR/a/b.
	tests := map[string]struct {
		change func(dir string) error
		path   string
		// The components that are refused on the way to the program and to its folder.
		program, folder string
	}{
		"root's":            {path: "a/b/w"},
		"root's, by a link": {path: "c/link/w"},
		"dots after a link": {path: "c/link/../b/w"},
		"file of another": {
			change: func(dir string) error { return os.Chown(dir+"/a/b/w", nobody, 0) },
			path:   "a/b/w", program: "a/b/w",
		},
		"file of the group": {
			change: func(dir string) error { return os.Chmod(dir+"/a/b/w", 0o775) },
			path:   "a/b/w", program: "a/b/w",
		},
		"folder of another": {
			change: func(dir string) error { return os.Chown(dir+"/a/b", nobody, 0) },
			path:   "a/b/w", program: "a/b", folder: "a/b",
		},
		"folder above of another": {
			change: func(dir string) error { return os.Chown(dir+"/a", nobody, 0) },
			path:   "c/link/w", program: "a", folder: "a",
		},
		"folder of the group": {
			change: func(dir string) error {
				return errors.Join(os.Chown(dir+"/a/b", 0, nobody), os.Chmod(dir+"/a/b", 0o775))
			},
			path: "a/b/w", program: "a/b", folder: "a/b",
		},
		"folder of all": {
			change: func(dir string) error { return os.Chmod(dir+"/a/b", 0o777) },
			path:   "a/b/w", program: "a/b", folder: "a/b",
		},
		"sticky folder of all": {
			change: func(dir string) error { return os.Chmod(dir+"/a/b", 0o777|fs.ModeSticky) },
			path:   "a/b/w", folder: "a/b",
		},
		"link of another in a sticky folder": {
			change: func(dir string) error {
				return errors.Join(os.Chmod(dir+"/c", 0o777|fs.ModeSticky), os.Lchown(dir+"/c/link", nobody, 0))
			},
			path: "c/link/w", program: "c/link", folder: "c/link",
		},
		"folder of a link": {
			change: func(dir string) error { return os.Chmod(dir+"/c", 0o757) },
			path:   "c/link/w", program: "c", folder: "c",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			err := errors.Join(
				os.MkdirAll(dir+"/a/b", 0o755), os.Mkdir(dir+"/c", 0o755),
				os.WriteFile(dir+"/a/b/w", nil, 0o755), os.Symlink(dir+"/a/b", dir+"/c/link"),
			)
			if tt.change != nil {
				err = errors.Join(err, tt.change(dir))
			}
			if err != nil {
				t.Fatal(err)
			}
			wantReplaceable(t, CheckProgram(dir+"/"+tt.path), dir, tt.program)
			wantReplaceable(t, CheckFolder(filepath.Dir(dir+"/"+tt.path)), dir, tt.folder)
		})
	}
}

func wantReplaceable(t *testing.T, err error, dir, component string) {
	t.Helper()
	if component == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	var got *ReplaceableError
	if !errors.As(err, &got) || got.Path != filepath.Join(dir, component) {
		t.Fatalf("%v, want %s refused", err, component)
	}
	for _, want := range []string{got.Path, got.Mode.String(), "run hsu-master as"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

// A folder is checked whether it has to be made or not.
func TestMkdir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder")
	for range 2 { // the second time it exists
		if err := Mkdir(path); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("%v, %v, want a folder of mode 0700", info, err)
	}
	if !asRoot() {
		return
	}
	if err := os.Chown(path, nobody, 0); err != nil {
		t.Fatal(err)
	}
	wantReplaceable(t, Mkdir(path), filepath.Dir(path), "folder")
	wantReplaceable(t, Mkdir(path+"/below"), filepath.Dir(path), "folder")
	if _, err := os.Stat(path + "/below"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder was made in that of another user: %v", err)
	}
}

func TestCheckOfMissingPaths(t *testing.T) {
	if !asRoot() {
		t.Skip("only root is in danger")
	}
	missing := filepath.Join(t.TempDir(), "missing")
	if err := CheckFolder(missing); err != nil {
		t.Errorf("CheckFolder: %v, want nil: it is about to be made", err)
	}
	if err := CheckProgram(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("CheckProgram: %v, want ErrNotExist", err)
	}
	loop := filepath.Join(t.TempDir(), "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	if err := CheckProgram(loop); err == nil {
		t.Error("a link to itself passes")
	}
	if err := CheckProgram("/proc/self/exe"); err != nil {
		t.Errorf("CheckProgram of our own executable: %v", err)
	}
}

// A program that runs as a user may belong to that user, and to no third one.
func TestCheckProgramOfAUser(t *testing.T) {
	if !asRoot() {
		t.Skip("only root is in danger")
	}
	const third = 54321
	for name, tt := range map[string]struct {
		change func(dir string) error
		refuse string
		says   string
	}{
		"root's":          {func(string) error { return nil }, "", ""},
		"theirs":          {func(dir string) error { return os.Chown(dir+"/a/w", nobody, nobody) }, "", ""},
		"in their folder": {func(dir string) error { return os.Chown(dir+"/a", nobody, nobody) }, "", ""},
		"of a third one": {
			func(dir string) error { return os.Chown(dir+"/a/w", third, 0) },
			"a/w", "chown it to root or to user 65534",
		},
		"in the folder of a third one": {
			func(dir string) error { return os.Chown(dir+"/a", third, 0) }, "a", "chown it to root or to user 65534",
		},
		"theirs, for all": {
			func(dir string) error {
				return errors.Join(os.Chown(dir+"/a/w", nobody, 0), os.Chmod(dir+"/a/w", 0o777))
			}, "a/w", "chmod go-w it",
		},
		"folder of all": {func(dir string) error { return os.Chmod(dir+"/a", 0o777) }, "a", "chmod go-w it"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			err := errors.Join(
				os.Mkdir(dir+"/a", 0o755), os.WriteFile(dir+"/a/w", nil, 0o755), tt.change(dir),
			)
			if err != nil {
				t.Fatal(err)
			}
			err = CheckProgramOf(dir+"/a/w", nobody)
			if tt.refuse == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			got, ok := errors.AsType[*ReplaceableError](err)
			if !ok || got.Path != filepath.Join(dir, tt.refuse) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %s refused and %q", err, tt.refuse, tt.says)
			}
		})
	}
}

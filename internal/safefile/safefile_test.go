//go:build unix

package safefile

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// paths makes one path of each kind. Opening some of them with os.Open blocks forever.
func paths(t *testing.T) map[string]string {
	t.Helper()
	dir, err := os.MkdirTemp("", "safefile") //nolint:usetesting // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	at := map[string]string{"a device": os.DevNull}
	for kind, name := range map[string]string{
		"a regular file": "regular", "a FIFO": "fifo", "a socket": "socket", "a directory": "directory",
		"a symbolic link": "link",
	} {
		at[kind] = filepath.Join(dir, name)
	}
	listener, err := net.Listen("unix", at["a socket"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	if err := errors.Join(
		os.WriteFile(at["a regular file"], []byte("content"), 0o600),
		unix.Mkfifo(at["a FIFO"], 0o600),
		os.Mkdir(at["a directory"], 0o700),
		os.Symlink("regular", at["a symbolic link"]),
	); err != nil {
		t.Fatal(err)
	}
	return at
}

func TestOpen(t *testing.T) {
	at := paths(t)
	for name, open := range map[string]func(string) (*os.File, error){
		"Open":      Open,
		"OpenInput": OpenInput,
		"append": func(path string) (*os.File, error) {
			return OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		},
		"read and write": func(path string) (*os.File, error) { return OpenFile(path, os.O_RDWR, 0) },
	} {
		for kind, path := range at {
			f, err := open(path)
			_ = f.Close()
			if kind == "a regular file" || kind == "a symbolic link" && name == "OpenInput" {
				if err != nil {
					t.Errorf("%s of %s: %v", name, kind, err)
				}
				continue
			}
			if !errors.Is(err, ErrNotRegular) || !strings.Contains(err.Error(), path+": not a regular file but "+kind) {
				t.Errorf("%s of %s: %v, want ErrNotRegular with path and kind", name, kind, err)
			}
		}
	}
}

// A reader at the other end lets the open succeed, but the FIFO is still not a file.
func TestOpenOfAFIFOWithAReader(t *testing.T) {
	path := paths(t)["a FIFO"]
	reader, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	if _, err := OpenFile(path, os.O_WRONLY|os.O_APPEND, 0); !errors.Is(err, ErrNotRegular) {
		t.Errorf("OpenFile: %v, want ErrNotRegular", err)
	}
}

func TestOpenKeepsOtherErrors(t *testing.T) {
	at := paths(t)
	if _, err := Open(at["a regular file"] + ".missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of a missing file: %v, want ErrNotExist", err)
	}
	for _, kind := range []string{"a regular file", "a symbolic link", "a FIFO"} {
		if _, err := OpenFile(at[kind], os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); !errors.Is(err, fs.ErrExist) {
			t.Errorf("OpenFile with O_EXCL of %s: %v, want ErrExist", kind, err)
		}
	}
}

// A worker inherits the open file description of its log, including its flags.
func TestOpenLeavesNoFlag(t *testing.T) {
	f, err := OpenFile(paths(t)["a regular file"], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK != 0 || flags&unix.O_APPEND == 0 {
		t.Errorf("flags = %#x, %v, want O_APPEND without O_NONBLOCK", flags, err)
	}
}

func TestWriteNew(t *testing.T) {
	at := paths(t)
	for kind, path := range at {
		switch kind {
		case "a device", "a directory":
			continue
		}
		if err := WriteNew(path, "new", 0o600); err != nil {
			t.Errorf("WriteNew over %s: %v", kind, err)
		}
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() || info.Size() != 3 {
			t.Errorf("over %s: %v, %v, want a regular file", kind, info, err)
		}
	}
}

func TestRead(t *testing.T) {
	at := paths(t)
	if b, err := ReadFile(at["a regular file"], 4); string(b) != "cont" || err != nil {
		t.Errorf("ReadFile = %q, %v, want the first 4 bytes", b, err)
	}
	if b, err := ReadInput(at["a symbolic link"]); string(b) != "content" || err != nil {
		t.Errorf("ReadInput = %q, %v, want what the link leads to", b, err)
	}
	if err := os.Truncate(at["a regular file"], 1<<20+1); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadInputUpTo(at["a regular file"], 1<<20); !errors.Is(err, ErrTooLarge) ||
		!strings.Contains(err.Error(), "more than 1 MiB") {
		t.Errorf("ReadInput of a huge file: %v", err)
	}
}

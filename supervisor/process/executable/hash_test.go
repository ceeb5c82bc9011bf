package executable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestHash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	write := func(content string) {
		t.Helper()
		// A new file replaces the old one, as in an upgrade.
		if err := os.WriteFile(path+".new", []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write("abc")
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got, err := Hash(path); err != nil || got != want {
				t.Errorf("got %s, %v, want %s", got, err, want)
			}
		})
	}
	wg.Wait()
	write("abcd")
	if got, err := Hash(path); err != nil || got == want {
		t.Errorf("after a change: %s, %v", got, err)
	}
	for range 2*maxVersions + 1 {
		write("abc")
		if got, err := Hash(path); err != nil || got != want {
			t.Fatalf("got %s, %v, want %s", got, err, want)
		}
	}
	if n := len(hashes.known); n > maxVersions {
		t.Errorf("%d hashes are kept, want %d at most", n, maxVersions)
	}
}

func TestHashFails(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "missing")} {
		_, err := Hash(path)
		if err == nil || !strings.HasPrefix(err.Error(), "hash executable: ") || !strings.Contains(err.Error(), path) {
			t.Errorf("Hash(%s): %v, want an error with its name", path, err)
		}
	}
}

// A file that is read once has its value until it changes. A failed read is repeated.
func TestVersions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	var v versions[int]
	reads := 0
	fault := errors.New("fault")
	read := func(*os.File) (int, error) {
		if reads++; reads == 1 {
			return 0, fault
		}
		return reads, nil
	}
	if _, err := v.of(path, read); !errors.Is(err, fault) {
		t.Errorf("first read: %v, want the fault", err)
	}
	_, err := versionAt(path)
	cached := err == nil // else each call reads the file
	for range 3 {
		if got, err := v.of(path, read); err != nil || cached && got != 2 {
			t.Errorf("got %d, %v, want the value of the second read", got, err)
		}
	}
	if err := os.WriteFile(path, []byte("ab"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := v.of(path, read); err != nil || cached && got != 3 {
		t.Errorf("after a change: %d, %v, want the value of another read", got, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := v.of(path, read); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a removed file: %v", err)
	}
}

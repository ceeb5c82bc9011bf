package process

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestHashExecutable(t *testing.T) {
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
			if got, err := HashExecutable(path); err != nil || got != want {
				t.Errorf("got %s, %v, want %s", got, err, want)
			}
		})
	}
	wg.Wait()
	write("abcd")
	if got, err := HashExecutable(path); err != nil || got == want {
		t.Errorf("after a change: %s, %v", got, err)
	}
	for range 2*maxHashes + 1 {
		write("abc")
		if got, err := HashExecutable(path); err != nil || got != want {
			t.Fatalf("got %s, %v, want %s", got, err, want)
		}
	}
	if n := len(hashes.known); n > maxHashes {
		t.Errorf("%d hashes are kept, want %d at most", n, maxHashes)
	}
}

func TestHashExecutableFails(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "missing")} {
		_, err := HashExecutable(path)
		if err == nil || !strings.HasPrefix(err.Error(), "hash executable: ") || !strings.Contains(err.Error(), path) {
			t.Errorf("HashExecutable(%s): %v, want an error with its name", path, err)
		}
	}
}

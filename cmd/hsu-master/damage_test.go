package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
)

// Whichever bit of the state is flipped, a reader returns the readable part or an error that the file is damaged,
// and leaves the file unchanged.
func TestReaderOfADamagedStateNeitherPanicsNorChangesIt(t *testing.T) {
	sound := t.TempDir()
	if err := makeState([]string{sound}); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(sound, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	// Most of a new database is empty pages, where a flipped bit is no damage.
	used := bytes.TrimRight(content, "\x00")
	random := rand.New(rand.NewPCG(1, 2))
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	codes := map[int]int{}
	for range 400 {
		damaged := bytes.Clone(content)
		at, bit := random.IntN(len(used)), byte(1)<<random.IntN(8)
		damaged[at] ^= bit
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		code := run(context.Background(), []string{"state", "dump", "--json", "--state-dir", dir}, &stdout, &stderr)
		codes[code]++
		switch {
		case code == exit.Done:
		case code == exit.Failed && strings.Contains(stderr.String(), "has schema version"):
		case code == exit.Damaged && strings.Contains(stderr.String(), path):
		default:
			t.Errorf("bit %#x of byte %d: exit code %d: %s", bit, at, code, stderr.String())
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, damaged) {
			t.Fatalf("bit %#x of byte %d: the file was changed, %v", bit, at, err)
		}
	}
	if codes[exit.Done] == 0 || codes[exit.Damaged] == 0 {
		t.Errorf("exit codes were %v, want some of each: the test proves nothing else", codes)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the reader left %v, %v", entries, err)
	}
}

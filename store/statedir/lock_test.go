package statedir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHolderOfAnOddLockFile(t *testing.T) {
	dir := t.TempDir()
	for content, want := range map[string]int{
		"": 0, "12\n": 12, "12": 12, "x\n": 0, "-1\n": 0, "0\n": 0, strings.Repeat("1", 100): 0,
	} {
		if err := os.WriteFile(filepath.Join(dir, LockName), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := holder(dir); got != want {
			t.Errorf("%q: %d, want %d", content, got, want)
		}
	}
}

package logs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzTail reads the end of the output of a worker, which may contain anything.
func FuzzTail(f *testing.F) {
	for _, s := range []string{
		"", "\n\n\n", "one line", "first\nsecond\n", strings.Repeat("line\n", 2000), strings.Repeat("x", 5000),
		"\xff\xfe\n\x00\n", strings.Repeat("\xe2\x82", 2047) + "\xac\n", "a\r\nb\r\n",
	} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "worker.log")
	f.Fuzz(func(t *testing.T, written []byte) {
		if err := os.WriteFile(path, written, 0o600); err != nil {
			t.Fatal(err)
		}
		lines := Tail(path)
		if len(lines) > lastOutputLines || len(strings.Join(lines, "\n")) > 3*lastOutputBytes {
			t.Errorf("%d lines of %d bytes", len(lines), len(strings.Join(lines, "\n")))
		}
		for _, line := range lines {
			if !utf8.ValidString(line) || strings.Contains(line, "\n") {
				t.Errorf("line %q", line)
			}
		}
		if len(written) > lastOutputBytes {
			return
		}
		// The whole file was read.
		want := strings.Split(strings.TrimRight(strings.ToValidUTF8(string(written), "\uFFFD"), "\n"), "\n")
		want = want[max(0, len(want)-lastOutputLines):]
		if got, want := strings.Join(lines, "\n"), strings.Join(want, "\n"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

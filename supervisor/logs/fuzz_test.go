package logs

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/core-tools/hsu-master/supervisor/logs/layout"
)

// FuzzTail reads the end of the output of a worker, which may contain anything.
func FuzzTail(f *testing.F) {
	for _, s := range []string{
		"", "\n\n\n", "one line", "first\nsecond\n", strings.Repeat("line\n", 2000), strings.Repeat("x", 5000),
		"\xff\xfe\n\x00\n", strings.Repeat("\xe2\x82", 2047) + "\xac\n", "a\r\nb\r\n",
		strings.Repeat("\x00", 5000) + "after a hole\n\n", string(layout.Filler(60)) + "after a filler\n",
		string(layout.Marker{N: 1, End: 140}.Bytes()) + "is rotated\n \nis not\n",
	} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "worker.log")
	f.Fuzz(func(t *testing.T, written []byte) {
		if err := os.WriteFile(path, written, 0o600); err != nil {
			t.Fatal(err)
		}
		lines := Tail(path)
		if len(lines) > lastOutputLines || len(strings.Join(lines, "\n")) > 3*TailSize {
			t.Errorf("%d lines of %d bytes", len(lines), len(strings.Join(lines, "\n")))
		}
		for _, line := range lines {
			if !utf8.ValidString(line) || strings.ContainsAny(line, "\n\x00") {
				t.Errorf("line %q", line)
			}
		}
		if len(written) > TailSize {
			return
		}
		// The whole file was read.
		written = layoutLines(written)
		want := strings.Split(strings.TrimRight(strings.ToValidUTF8(string(written), "\uFFFD"), "\n"), "\n")
		want = want[max(0, len(want)-lastOutputLines):]
		if got, want := strings.Join(lines, "\n"), strings.Join(want, "\n"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// layoutLines returns the content of a log without the traces of rotation.
func layoutLines(log []byte) []byte {
	lines := bytes.TrimLeft(log, "\x00")
	first := int64(len(log) - len(lines))
	filler := layout.Filler(layout.MinFiller)
	if at := layout.MarkerAt(first); at < int64(len(log)) {
		m, ok := layout.ParseMarker(log[at:])
		if ok && m.End >= at+layout.MarkerSize && m.End <= int64(len(log)) {
			return bytes.ReplaceAll(log[m.End:], []byte{0}, nil)
		}
	}
	if _, rest, found := bytes.Cut(lines, []byte("\n")); found && bytes.HasPrefix(lines, filler[:len(filler)-1]) {
		lines = rest
	}
	return bytes.ReplaceAll(lines, []byte{0}, nil)
}

package tail

import (
	"bytes"
	"strings"
	"testing"
)

// split feeds a text in pieces of a size, and returns the lines, with ">" behind one that goes on.
func split(text []byte, size int) (found []string) {
	var l lines
	visit := func(line line) {
		s := string(line.text)
		if line.more {
			s += ">"
		}
		found = append(found, s)
	}
	for len(text) > 0 {
		n := min(size, len(text))
		l.feed(bytes.Clone(text[:n]), visit)
		text = text[n:]
	}
	l.end(visit)
	return found
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", MaxLine)
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"nothing":         {"", nil},
		"lines":           {"a\n\nb\n", []string{"a\n", "\n", "b\n"}},
		"no end":          {"a\nb", []string{"a\n", "b\n"}},
		"NULs":            {"\x00a\x00b\x00\n\x00", []string{"ab\n"}},
		"garbage":         {"\xff\x1b[1m\r\n", []string{"\xff\x1b[1m\r\n"}},
		"longest":         {long[1:] + "\nb\n", []string{long[1:] + "\n", "b\n"}},
		"cut":             {long + "\nb\n", []string{long + ">", "\n", "b\n"}},
		"cut twice":       {long + long + "yz", []string{long + ">", long + ">", "yz\n"}},
		"cut at its end":  {long, []string{long + ">", "\n"}},
		"cut, then lines": {long + "y\nb\n", []string{long + ">", "y\n", "b\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 7, MaxLine - 1, MaxLine, 3 * MaxLine} {
				got := split([]byte(test.text), size)
				if strings.Join(got, "|") != strings.Join(test.want, "|") {
					t.Errorf("in pieces of %d: %d lines, want %d: %.80q", size, len(got), len(test.want), got)
				}
			}
		})
	}
}

// The pieces in which a text comes make no difference, nothing but NULs is lost, and memory is bounded.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nb\x00c"), uint8(1))
	f.Add([]byte(strings.Repeat("x", 100)), uint8(3))
	f.Fuzz(func(t *testing.T, text []byte, size uint8) {
		text = bytes.Repeat(text, 1+int(size)*20) // some lines are cut
		whole, pieces := split(text, len(text)+1), split(text, 1+int(size))
		if strings.Join(whole, "|") != strings.Join(pieces, "|") {
			t.Fatalf("%q as a whole, %q in pieces", whole, pieces)
		}
		var b strings.Builder
		for _, line := range whole {
			if len(line) > MaxLine+1 {
				t.Fatalf("a line of %d bytes", len(line))
			}
			b.WriteString(strings.TrimSuffix(line, ">"))
		}
		want := strings.ReplaceAll(string(text), "\x00", "")
		if got := b.String(); strings.TrimSuffix(got, "\n") != strings.TrimSuffix(want, "\n") &&
			!strings.Contains(want, ">") {
			t.Fatalf("%q, want %q", got, want)
		}
	})
}

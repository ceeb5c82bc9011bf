package process

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

const longest = 1 << 17 // bytes

func collect(r io.Reader) []string {
	var lines []string
	logLines(r, longest, func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) })
	return lines
}

func TestLines(t *testing.T) {
	// The lengths are around the size of the reader's buffer.
	long := func(n int) string { return strings.Repeat("0123456789", n/10+1)[:n] }
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"nothing", "", nil},
		{"one", "a\n", []string{"a"}},
		{"no line end", "a\nb", []string{"a", "b"}},
		{"empty lines", "\n\na\n\n", []string{"", "", "a", ""}},
		{"carriage returns", "a\r\n\r\nb\rc\r\n", []string{"a", "", "b\rc"}},
		{"formats", "%s%d%!\n%", []string{"%s%d%!", "%"}},
		{"no text", "\x00\xff\n", []string{"\x00\xff"}},
		{"4095", long(4095) + "\nb\n", []string{long(4095), "b"}},
		{"4096", long(4096) + "\nb\n", []string{long(4096), "b"}},
		{"4096 without end", long(4096), []string{long(4096)}},
		{"carriage return split off", long(4095) + "\r\nb", []string{long(4095), "b"}},
		{"long", long(longest-1) + "\nb\n" + long(100_000) + "\n", []string{long(longest - 1), "b", long(100_000)}},
		{"long without end", long(longest - 1), []string{long(longest - 1)}},
		{"longer", long(longest) + "tail\nb", []string{long(longest), "tail", "b"}},
	} {
		for name, r := range map[string]io.Reader{
			"at once": strings.NewReader(c.in),
			"halves":  iotest.HalfReader(strings.NewReader(c.in)),
			"failing": io.MultiReader(strings.NewReader(c.in), iotest.ErrReader(errors.New("lost"))),
		} {
			if got := collect(r); !slices.Equal(got, c.want) {
				t.Errorf("%s, %s: %d lines %.60q, want %d", c.name, name, len(got), got, len(c.want))
			}
		}
	}
}

func FuzzLines(f *testing.F) {
	for _, in := range []string{
		"", "a\nb", "a\r\n\r\n", "%s%d\n\x00\xff",
		strings.Repeat("x", 4095) + "\r\ny", strings.Repeat("x", 9000) + "\n",
	} {
		f.Add(in, uint16(10))
	}
	f.Fuzz(func(t *testing.T, in string, longest uint16) {
		var want []string
		lines := strings.Split(in, "\n")
		for _, line := range lines[:len(lines)-1] {
			want = append(want, strings.TrimSuffix(line, "\r"))
		}
		if last := lines[len(lines)-1]; last != "" {
			want = append(want, last)
		}
		all := func(longest int) (got []string) {
			logLines(iotest.HalfReader(strings.NewReader(in)), longest, func(format string, args ...any) {
				got = append(got, fmt.Sprintf(format, args...))
			})
			return got
		}
		if got := all(len(in) + 1<<13); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		// Long lines are split, and nothing is lost.
		most := max(1, int(longest))
		got := all(most)
		for _, piece := range got {
			if len(piece) >= most+4096 || strings.Contains(piece, "\n") {
				t.Errorf("a piece of %d bytes: %.60q", len(piece), piece)
			}
		}
		if strings.ReplaceAll(strings.Join(got, ""), "\r", "") != strings.ReplaceAll(strings.Join(want, ""), "\r", "") {
			t.Errorf("%q, want the text of %q", got, want)
		}
	})
}

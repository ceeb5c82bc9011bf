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
	// Around the size of the reader's buffer.
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

package render

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// On a terminal, a table is as wide as that: the last column is wrapped, others are cut. Elsewhere, nothing is.
func TestTableOnATerminal(t *testing.T) {
	table := NewTable("WORKER", "STATUS", "EMPTY", "REASON")
	table.Row("a-worker-with-a-very-long-name-0", "running", "", "it lives and is the recorded one, and stays as it is")
	table.Row("b-0", "in ü", "", "")
	for width, want := range map[int]string{
		0: `WORKER                            STATUS   REASON
a-worker-with-a-very-long-name-0  running  it lives and is the recorded one, and stays as it is
b-0                               in ü
`,
		80: `WORKER                            STATUS   REASON
a-worker-with-a-very-long-name-0  running  it lives and is the recorded one, and
                                           stays as it is
b-0                               in ü
`,
		50: `WORKER           STATUS   REASON
a-worker-with-…  running  it lives and is the
                          recorded one, and stays
                          as it is
b-0              in ü
`,
	} {
		got := table.text(width)
		if got != want {
			t.Errorf("width %d:\n%s\nwant\n%s", width, got, want)
		}
		for line := range strings.Lines(got) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); width > 0 && n > width {
				t.Errorf("width %d: %q has %d", width, line, n)
			}
		}
	}
}

// A table that a terminal is too narrow for is not cut: the terminal wraps its lines.
func TestTableOnATerminalThatIsTooNarrow(t *testing.T) {
	table := NewTable("WORKER", "STATUS", "REASON")
	table.Row("a-worker-with-a-very-long-name-0", "running", "it lives and is the recorded one")
	if got, want := table.text(20), table.text(0); got != want {
		t.Errorf("20 columns:\n%s\nwant\n%s", got, want)
	}
}

// A text that is indented stays so in all of its lines.
func TestParagraphIsIndented(t *testing.T) {
	for text, want := range map[string]string{
		"a short text":            "a short\n  text",
		"  of 3 workers, 2 run":   "  of 3\n    workers,\n    2 run",
		"  well":                  "  well",
		"unbreakableword and two": "unbreakableword\n  and two",
		"ääääää ääää":             "ääääää\n  ääää",
		"ääää ääää":               "ääää ääää", // characters count, not bytes
	} {
		if got := Paragraph(text, 12, 2); got != want {
			t.Errorf("%q becomes\n%s\nwant\n%s", text, got, want)
		}
	}
}

package render

import (
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/terminal"
)

// PageWidth is the width, in characters, of the text that commands lay out themselves, if it is not for a terminal.
const PageWidth = 80

// leastPage is the width below which a page gets no narrower.
const leastPage = 40

// Page is text in lines of at most a width. Characters that could control a terminal are escaped. The zero value is a
// page of PageWidth.
//
// A page that is narrower than PageWidth has more lines instead: its texts are wrapped, not cut. On a terminal, a word
// that is longer than a line stays whole.
type Page struct {
	lines []string
	width int // of the terminal; 0: it is for none
}

// NewPage returns a page for a terminal of the width, one of PageWidth if that is 0.
func NewPage(width int) Page {
	if width > 0 {
		width = max(width, leastPage)
	}
	return Page{width: width}
}

// PageFor returns a page for the terminal that w writes to, one of PageWidth if it is none.
func PageFor(w io.Writer) Page { return NewPage(terminal.Width(w)) }

const (
	labelWidth = 10   // of the labels of a page
	outputMark = "| " // begins a line that a program has written
)

// Add adds a line, which is wrapped or cut at the width.
func (p *Page) Add(line string) {
	if parts := p.wrapped(line, 0, 1); len(parts) > 1 {
		for i, part := range p.wrapped(line, columnGap, 1) {
			p.lines = append(p.lines, strings.Repeat(" ", columnGap*min(i, 1))+part)
		}
	} else {
		p.lines = append(p.lines, parts...)
	}
}

// Field adds a label and its text, wrapped into at most the given number of lines of a page of PageWidth. An empty text
// adds nothing.
func (p *Page) Field(label, text string, most int) {
	if text == "" {
		return
	}
	for _, line := range p.wrapped(text, labelWidth, most) {
		p.lines = append(p.lines, Padded("  "+label, labelWidth)+line)
		label = ""
	}
}

// List adds a label and lines, each wrapped or cut at the width.
func (p *Page) List(label string, lines []string) {
	for _, line := range lines {
		p.Field(label, line, 1)
		label = ""
	}
}

// Output adds a label and the last of the lines that a program has written, as many as fit into the given number of
// lines of this page. Each is marked, and wrapped or cut at the width; a single one has the room of three.
func (p *Page) Output(label string, lines []string, most int) {
	if most <= 0 {
		return
	}
	each := 1
	if len(lines) == 1 {
		each = min(3, most)
	}
	var rows []string
	for _, line := range slices.Backward(lines) {
		parts := p.wrapped(line, labelWidth+len(outputMark), each)
		if len(rows)+len(parts) > most {
			break
		}
		for i := range parts {
			mark := outputMark
			if i > 0 {
				mark = strings.Repeat(" ", len(outputMark))
			}
			parts[i] = mark + parts[i]
		}
		rows = append(parts, rows...)
	}
	for i, row := range rows {
		if i > 0 {
			label = ""
		}
		p.lines = append(p.lines, Padded("  "+label, labelWidth)+row)
	}
}

// Narrow reports whether the page is narrower than PageWidth.
func (p *Page) Narrow() bool { return p.width != 0 && p.width < PageWidth }

// Len returns the number of lines.
func (p *Page) Len() int { return len(p.lines) }

func (p *Page) String() string { return strings.Join(p.lines, "\n") + "\n" }

// wrapped breaks the text at blanks into lines beside a label of the given width. There are at most as many as have the
// room of so many lines of a page of PageWidth. What does not fit into them is cut off.
func (p *Page) wrapped(text string, label, most int) []string {
	width := PageWidth - label
	if p.width != 0 {
		width = p.width - label
	}
	if p.Narrow() { // one more, since more of the ends of short lines stays empty
		most = (most*(PageWidth-label)+width-1)/width + 1
	}
	lines := Wrap(Printable(text), width)
	if len(lines) > most {
		lines = append(lines[:most-1:most-1], strings.Join(lines[most-1:], " "))
		lines[most-1] = CutAt(lines[most-1], width)
	}
	if p.width == 0 {
		for i, line := range lines {
			lines[i] = CutAt(line, width)
		}
	}
	return lines
}

// Padded returns the text with blanks up to a width, at least one.
func Padded(text string, width int) string {
	return text + strings.Repeat(" ", max(1, width-utf8.RuneCountInString(text)))
}

// CutAt returns the text with at most width characters. If it is cut, it ends in three dots.
func CutAt(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return strings.TrimRight(string([]rune(text)[:max(0, width-3)]), " ") + "..."
}

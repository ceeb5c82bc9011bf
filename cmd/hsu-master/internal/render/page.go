package render

import (
	"strings"
	"unicode/utf8"
)

// PageWidth is the width, in characters, of the text that commands lay out themselves.
const PageWidth = 80

// Page is text in lines of at most PageWidth characters. Characters that could control a terminal are
// escaped.
type Page struct{ lines []string }

// Add adds a line, cut at the width.
func (p *Page) Add(line string) { p.lines = append(p.lines, CutAt(Printable(line), PageWidth)) }

// labelWidth is the width of the labels of a page.
const labelWidth = 10

// Field adds a label and its text, wrapped into at most the given number of lines. An empty text adds nothing.
func (p *Page) Field(label, text string, most int) {
	if text == "" {
		return
	}
	for i, line := range wrapped(Printable(text), PageWidth-labelWidth, most) {
		if i > 0 {
			label = ""
		}
		p.lines = append(p.lines, Padded("  "+label, labelWidth)+line)
	}
}

// List adds a label and lines, each cut at the width.
func (p *Page) List(label string, lines []string) {
	for _, line := range lines {
		p.lines = append(p.lines, Padded("  "+label, labelWidth)+CutAt(Printable(line), PageWidth-labelWidth))
		label = ""
	}
}

// Len returns the number of lines.
func (p *Page) Len() int { return len(p.lines) }

func (p *Page) String() string { return strings.Join(p.lines, "\n") + "\n" }

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

// wrapped breaks the text at blanks into lines of at most width characters. What does not fit into the lines is cut
// off.
func wrapped(text string, width, most int) []string {
	lines := Wrap(text, width)
	if len(lines) > most {
		lines = append(lines[:most-1:most-1], strings.Join(lines[most-1:], " "))
	}
	for i, line := range lines {
		lines[i] = CutAt(line, width)
	}
	return lines
}

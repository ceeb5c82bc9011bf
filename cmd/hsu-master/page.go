package main

import (
	"strings"
	"unicode/utf8"
)

// pageWidth is the width of the text that commands lay out themselves.
const pageWidth = 80

// page is text in lines of at most pageWidth characters. Characters that could control a terminal are
// escaped.
type page struct{ lines []string }

// add adds a line, cut at the width.
func (p *page) add(line string) { p.lines = append(p.lines, cutAt(printable(line), pageWidth)) }

// labelWidth is the width of the labels of a page.
const labelWidth = 10

// field adds a label and its text, wrapped into at most the given number of lines. An empty text adds nothing.
func (p *page) field(label, text string, most int) {
	if text == "" {
		return
	}
	for i, line := range wrapped(printable(text), pageWidth-labelWidth, most) {
		if i > 0 {
			label = ""
		}
		p.lines = append(p.lines, padded("  "+label, labelWidth)+line)
	}
}

// list adds a label and lines, each cut at the width.
func (p *page) list(label string, lines []string) {
	for _, line := range lines {
		p.lines = append(p.lines, padded("  "+label, labelWidth)+cutAt(printable(line), pageWidth-labelWidth))
		label = ""
	}
}

func (p *page) String() string { return strings.Join(p.lines, "\n") + "\n" }

// padded returns the text with blanks up to a width, at least one.
func padded(text string, width int) string {
	return text + strings.Repeat(" ", max(1, width-utf8.RuneCountInString(text)))
}

// cutAt returns the text with at most width characters. If it is cut, it ends in three dots.
func cutAt(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return strings.TrimRight(string([]rune(text)[:max(0, width-3)]), " ") + "..."
}

// wrapped breaks the text at blanks into lines of at most width characters. What does not fit into the lines is cut
// off.
func wrapped(text string, width, most int) []string {
	lines := wrap(text, width)
	if len(lines) > most {
		lines = append(lines[:most-1:most-1], strings.Join(lines[most-1:], " "))
	}
	for i, line := range lines {
		lines[i] = cutAt(line, width)
	}
	return lines
}

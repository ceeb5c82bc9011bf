// Package render lays text out: lines and paragraphs of a width, tables, pages, times, JSON, the progress of an
// operation. It does not know the subject of the text. Text that comes from workers or from a file must pass
// [Printable] before it is printed.
package render

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Printable escapes the characters that could control the terminal: much of the output comes from workers or may
// come from a damaged file.
func Printable(text string) string {
	clean := func(r rune) bool { return r != utf8.RuneError && strconv.IsPrint(r) }
	if !strings.ContainsFunc(text, func(r rune) bool { return !clean(r) }) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if clean(r) {
			b.WriteRune(r)
		} else {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}

// Count returns the number with the noun, in the plural unless it is 1: "1 worker", "2 workers".
func Count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// Number returns the number, or "-" for 0.
func Number(n int32) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(int(n))
}

// OrDash returns the text, or "-" if it is empty.
func OrDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Unbroken is a space at which [Wrap] breaks no line.
const Unbroken = "\u00a0"

// Wrap breaks the text into lines of at most width characters.
func Wrap(text string, width int) (lines []string) {
	line := ""
	for word := range strings.SplitSeq(text, " ") {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	lines = append(lines, line)
	for i, line := range lines {
		lines[i] = strings.ReplaceAll(strings.TrimRight(line, " "), Unbroken, " ")
	}
	return lines
}

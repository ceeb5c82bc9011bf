package render

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/terminal"
)

// Table is text in columns, of which the first row has the titles. Its cells must be printable.
//
// On a terminal, it is as wide as that at most: the last column is wrapped, and if that is not enough, the longest
// cells of the other columns are cut, which then end in "…". In a file or a pipe, and on a terminal that is too
// narrow for that, nothing is wrapped or cut.
type Table struct{ rows [][]string }

const (
	columnGap = 2
	// leastColumn and leastText are the widths below which columns are not cut, and the last one is not wrapped.
	leastColumn = 8
	leastText   = 24
)

// NewTable returns a table with only its titles.
func NewTable(titles ...string) *Table { return &Table{rows: [][]string{titles}} }

// Row adds a row.
func (t *Table) Row(cells ...string) { t.rows = append(t.rows, cells) }

// Print prints the table without empty columns.
func (t *Table) Print(w io.Writer) error {
	if _, err := io.WriteString(w, t.text(terminal.Width(w))); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// Width returns the width of the widest line if nothing is cut or wrapped.
func (t *Table) Width() int {
	return widthOfLine(columnWidths(t.withoutEmpty()))
}

// widthOfLine returns the width of a line with columns of these widths.
func widthOfLine(widths []int) int {
	sum := columnGap * (len(widths) - 1)
	for _, n := range widths {
		sum += n
	}
	return sum
}

// text lays the table out for a width; 0 means that there is none.
func (t *Table) text(width int) string {
	rows := t.withoutEmpty()
	widths := columnWidths(rows)
	last := len(widths) - 1
	if fitted := slices.Clone(widths); width > 0 {
		if fit(fitted, width); widthOfLine(fitted) <= width {
			widths = fitted
		} else {
			width = 0
		}
	}
	before := columnGap * last // the columns before the last one
	for _, n := range widths[:last] {
		before += n
	}
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row[:last] {
			cell = ellipsized(cell, widths[i])
			line.WriteString(cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+columnGap))
		}
		parts := []string{row[last]}
		if width > 0 {
			parts = Wrap(row[last], widths[last])
		}
		for i, part := range parts {
			if i > 0 {
				line.WriteString("\n" + strings.Repeat(" ", before))
			}
			line.WriteString(ellipsized(part, widths[last]))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// withoutEmpty returns the rows without the columns that are empty in all of them but the first.
func (t *Table) withoutEmpty() [][]string {
	rows := make([][]string, len(t.rows))
	for i := range t.rows[0] {
		empty := len(t.rows) > 1 && !slices.ContainsFunc(t.rows[1:], func(row []string) bool { return row[i] != "" })
		for n, row := range t.rows {
			if !empty {
				rows[n] = append(rows[n], row[i])
			}
		}
	}
	return rows
}

func columnWidths(rows [][]string) []int {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

// fit makes columns narrower until they are at most so wide together, or cannot be narrower.
func fit(widths []int, width int) {
	last := len(widths) - 1
	excess := widthOfLine(widths) - width
	narrow := func(i, least int) {
		by := min(max(0, excess), max(0, widths[i]-least))
		widths[i] -= by
		excess -= by
	}
	narrow(last, leastText)
	for excess > 0 {
		widest := 0
		for i, n := range widths[:last] {
			if n > widths[widest] {
				widest = i
			}
		}
		if last == 0 || widths[widest] <= leastColumn {
			break
		}
		widths[widest]--
		excess--
	}
	narrow(last, leastColumn)
}

// ellipsized returns the text with at most so many characters. If it is cut, it ends in "…".
func ellipsized(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:max(0, width-1)]) + "…"
}

// Paragraph returns the text in lines of at most so many characters, all but the first indented by so many more than
// the text is. A word that is longer stays whole.
func Paragraph(text string, width, indent int) string {
	words := strings.TrimLeft(text, " ")
	before := text[:len(text)-len(words)]
	lines := Wrap(words, max(1, width-indent-len(before)))
	return before + strings.Join(lines, "\n"+before+strings.Repeat(" ", indent))
}

// OnTerminal returns the line wrapped at the width of the terminal that w writes to, unchanged if it is none.
func OnTerminal(w io.Writer, line string) string {
	width := terminal.Width(w)
	if width == 0 {
		return line
	}
	return Paragraph(line, width, columnGap)
}

// WidthFor returns the width of the text for people: that of the terminal, or the usual one.
func WidthFor(w io.Writer) int {
	if width := terminal.Width(w); width > 0 {
		return width
	}
	return PageWidth
}

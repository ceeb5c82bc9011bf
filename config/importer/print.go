package importer

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// printer prints a document. It is the only place that knows how our file is written.
type printer struct {
	lines  []string
	owners []*entry // of lines: the entry that a fault in the line concerns
	off    int      // the depth of the entry that is printed as a comment, or -1
}

// print returns the text of a document, and for each line the entry that it is about, or nil.
func (d *document) print() (string, []*entry) {
	p := &printer{off: -1}
	for _, comment := range d.head {
		p.comment(0, comment)
	}
	p.block(0, d.root)
	return strings.Join(p.lines, "\n") + "\n", p.owners
}

func (p *printer) add(depth int, owner *entry, line string) {
	line = indent(depth) + line
	if p.off >= 0 {
		line, owner = indent(p.off)+"# "+line[len(indent(p.off)):], nil
	}
	p.lines = append(p.lines, strings.TrimRight(line, " "))
	p.owners = append(p.owners, owner)
}

func indent(depth int) string { return strings.Repeat("  ", depth) }

func (p *printer) comment(depth int, text string) {
	for line := range strings.SplitSeq(text, "\n") {
		p.add(depth, nil, "# "+printable(line))
	}
}

func (p *printer) block(depth int, b *block) {
	for _, e := range b.entries {
		if e.form == noteEntry {
			p.comment(depth, e.text)
			continue
		}
		off := p.off
		if e.fault != "" {
			p.comment(depth, "left out: "+e.fault)
			if off < 0 {
				p.off = depth
			}
		}
		p.entry(depth, e)
		p.off = off
	}
}

func (p *printer) entry(depth int, e *entry) {
	switch e.form {
	case noteEntry: // printed by block
	case textEntry:
		p.add(depth, e, inYAML(e.name)+": "+inYAML(e.text))
	case listEntry:
		words := make([]string, len(e.list))
		for i, word := range e.list {
			words[i] = inYAML(word)
		}
		p.add(depth, e, inYAML(e.name)+": ["+strings.Join(words, ", ")+"]")
	case blockEntry:
		if e.optional && len(e.sub.entries) == 0 {
			return
		}
		head := inYAML(e.name) + ":"
		if !e.sub.live() {
			head += " {}"
		}
		p.add(depth, e, head)
		p.block(depth+1, e.sub)
	}
}

// live reports whether the block has an entry that is not printed as a comment.
func (b *block) live() bool {
	for _, e := range b.entries {
		if e.form != noteEntry && e.fault == "" {
			return true
		}
	}
	return false
}

// needsNoQuotes matches texts that mean themselves in YAML, also in brackets.
var needsNoQuotes = regexp.MustCompile(`^-{0,2}[A-Za-z0-9_./][A-Za-z0-9_./+:@%=-]*$`)

// inYAML returns a text so that YAML reads it as one.
func inYAML(text string) string {
	if needsNoQuotes.MatchString(text) && !strings.HasSuffix(text, ":") && !strings.EqualFold(text, "null") {
		return text
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case unicode.IsPrint(r) && r != unicode.ReplacementChar:
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// printable replaces the characters that a comment cannot have.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, strings.ReplaceAll(s, "\t", " "))
}

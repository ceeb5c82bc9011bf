package importer

import (
	"strings"
	"unicode"
)

// section is a section of an INI file.
type section struct {
	name    string
	file    string
	line    int
	options []option
}

// option is a key of a section. The name is in lower case. The lines of the value are separated by newlines.
type option struct {
	name, value string
	file        string
	line        int
}

// get returns the last option with the name, or nil.
func (s *section) get(name string) *option {
	if s == nil {
		return nil
	}
	for i := len(s.options) - 1; i >= 0; i-- {
		if s.options[i].name == name {
			return &s.options[i]
		}
	}
	return nil
}

// parseINI reads a file in the dialect of Python's RawConfigParser, as supervisord sets it up: "#" and ";" begin a
// comment at the start of a line or after a space, "=" or ":" ends a name, indented lines continue a value, and a
// section that is given twice is one.
func parseINI(file, content string) ([]*section, error) {
	p := iniParser{file: file, byName: map[string]*section{}}
	for line := range strings.SplitSeq(content, "\n") {
		p.line++
		if err := p.take(line); err != nil {
			return nil, err
		}
	}
	for _, s := range p.sections {
		for i := range s.options {
			s.options[i].value = strings.TrimRight(s.options[i].value, "\n")
		}
	}
	return p.sections, nil
}

type iniParser struct {
	file     string
	line     int
	sections []*section
	byName   map[string]*section
	current  *section
	open     bool // the last option can be continued
	indent   int  // of the last option or section
}

func (p *iniParser) take(line string) error {
	value, commented := withoutComment(line)
	if value == "" {
		if p.open && !commented {
			p.more("")
		}
		return nil
	}
	indent := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsSpace(r) })
	if p.open && indent > p.indent {
		p.more(value)
		return nil
	}
	p.indent = indent
	if end := strings.LastIndexByte(value, ']'); value[0] == '[' && end > 1 {
		p.begin(value[1:end])
		return nil
	}
	if p.current == nil {
		return p.fault("a section such as [program:web] must begin the file: is it a supervisord.conf?")
	}
	at := strings.IndexAny(value, "=:")
	if at < 0 {
		return p.fault("this is neither [SECTION] nor NAME=VALUE: indent a line that continues a value")
	}
	name := strings.ToLower(strings.TrimSpace(value[:at]))
	if name == "" {
		return p.fault("a name is missing before " + value[at:at+1] + ": write NAME=VALUE")
	}
	p.current.options = append(p.current.options, option{
		name: name, value: strings.TrimSpace(value[at+1:]), file: p.file, line: p.line,
	})
	p.open = true
	return nil
}

func (p *iniParser) fault(message string) error { return &ImportError{p.file, p.line, message} }

func (p *iniParser) begin(name string) {
	p.open = false
	if p.current = p.byName[name]; p.current != nil {
		return
	}
	p.current = &section{name: name, file: p.file, line: p.line}
	p.byName[name] = p.current
	p.sections = append(p.sections, p.current)
}

// more adds a line to the value of the last option.
func (p *iniParser) more(line string) {
	last := &p.current.options[len(p.current.options)-1]
	last.value += "\n" + line
}

// withoutComment returns a line without its comment and the space around it.
func withoutComment(line string) (value string, commented bool) {
	before := ' '
	for i, r := range line {
		if (r == ';' || r == '#') && unicode.IsSpace(before) {
			return strings.TrimSpace(line[:i]), true
		}
		before = r
	}
	return strings.TrimSpace(line), false
}

package importer

import (
	"fmt"
	"strings"
)

// text is a text of a foreign file, in which references stand for values that are not known yet.
type text []char

// char is a character, or a reference in the syntax of our file such as ${HOME} or {replica}.
type char struct {
	r   rune
	ref string // "" for a character
}

// maxText bounds a text after its references are replaced, in characters. Linux has no longer arguments.
const maxText = 128 << 10

var errLong = fmt.Errorf("is longer than %d characters with its variables replaced", maxText)

// literal returns a text that means itself.
func literal(s string) text {
	t := make(text, 0, len(s))
	for _, r := range s {
		t = append(t, char{r: r})
	}
	return t
}

func reference(ref string) text { return text{{ref: ref}} }

// literals returns the texts of a list of literal ones.
func literals(list ...string) []text {
	texts := make([]text, len(list))
	for i, s := range list {
		texts[i] = literal(s)
	}
	return texts
}

// argument returns the text as our file has it in a command, an environment variable or the target of a check.
func (t text) argument() string {
	var b strings.Builder
	for _, c := range t {
		switch {
		case c.ref != "":
			b.WriteString(c.ref)
		case c.r == '$' || c.r == '{':
			b.WriteRune(c.r)
			b.WriteRune(c.r)
		default:
			b.WriteRune(c.r)
		}
	}
	return b.String()
}

// plain returns the text as our file has it in other places, such as paths. ok is false if it has a placeholder, which
// only texts for argument can have.
func (t text) plain() (s string, ok bool) {
	var b strings.Builder
	for _, c := range t {
		switch {
		case strings.HasPrefix(c.ref, "{"):
			return "", false
		case c.ref != "":
			b.WriteString(c.ref)
		case c.r == '$':
			b.WriteString("$$")
		default:
			b.WriteRune(c.r)
		}
	}
	return b.String(), true
}

// refers reports whether the text has a reference that begins with prefix.
func (t text) refers(prefix string) bool {
	for _, c := range t {
		if c.ref != "" && strings.HasPrefix(c.ref, prefix) {
			return true
		}
	}
	return false
}

// arguments returns each of the texts as an argument of a command.
func arguments(words []text) []string {
	list := make([]string, len(words))
	for i, word := range words {
		list[i] = word.argument()
	}
	return list
}

// plainLiteral returns a literal text for a place without placeholders.
func plainLiteral(s string) string { return strings.ReplaceAll(s, "$", "$$") }

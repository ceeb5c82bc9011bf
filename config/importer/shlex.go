package importer

import (
	"errors"
	"strings"
	"unicode"
)

var (
	errQuote  = errors.New("a quote is not closed")
	errEscape = errors.New("nothing follows the last backslash")
)

// split splits a command line into words, as Python's shlex.split does: quotes group, a backslash makes the next
// character mean itself, in double quotes only before a quote or a backslash.
func split(line text) ([]text, error) {
	var words []text
	var word text
	open := false // a word has begun
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c.ref != "":
			word, open = append(word, c), true
		case c.r == '\\':
			if i++; i == len(line) {
				return nil, errEscape
			}
			word, open = append(word, line[i]), true
		case c.r == '"' || c.r == '\'':
			quoted, next, err := quotedPart(line, i)
			if err != nil {
				return nil, err
			}
			word, open, i = append(word, quoted...), true, next
		case strings.ContainsRune(" \t\r\n", c.r):
			if open {
				words = append(words, word)
			}
			word, open = nil, false
		default:
			word, open = append(word, c), true
		}
	}
	if open {
		words = append(words, word)
	}
	return words, nil
}

// quotedPart returns the text in the quotes that begin at start, and the index of the closing one.
func quotedPart(line text, start int) (quoted text, end int, err error) {
	quote := line[start].r
	for i := start + 1; i < len(line); i++ {
		c := line[i]
		switch {
		case c.ref == "" && c.r == quote:
			return quoted, i, nil
		case c.ref == "" && c.r == '\\' && quote == '"' && i+1 < len(line) &&
			line[i+1].ref == "" && (line[i+1].r == '"' || line[i+1].r == '\\'):
			i++
			quoted = append(quoted, line[i])
		default:
			quoted = append(quoted, c)
		}
	}
	return nil, 0, errQuote
}

// variable is a name and its value.
type variable struct {
	name  string
	value text
}

// pairs reads NAME=VALUE,NAME="VALUE" as supervisord does, which uses the tokens of Python's shlex.shlex: no backslash
// escapes anything, "#" begins a comment, and quotes at the ends of a value are removed.
func pairs(list text) ([]variable, error) {
	tokens, err := tokenize(list)
	if err != nil {
		return nil, err
	}
	var found []variable
	for len(tokens) > 0 {
		if len(tokens) < 3 || !tokens[1].is('=') {
			return nil, errors.New("must be NAME=\"VALUE\",NAME=\"VALUE\"")
		}
		name, ok := tokens[0].plain()
		if !ok || tokens[0].refers("$") {
			return nil, errors.New("the name of a variable cannot be another variable")
		}
		found = append(found, variable{name, unquoted(tokens[2])})
		tokens = tokens[3:]
		if len(tokens) > 0 {
			tokens = tokens[1:] // a comma
		}
	}
	return found, nil
}

func (t text) is(r rune) bool { return len(t) == 1 && t[0].ref == "" && t[0].r == r }

func unquoted(t text) text {
	isQuote := func(c char) bool { return c.ref == "" && (c.r == '"' || c.r == '\'') }
	for len(t) > 0 && isQuote(t[0]) {
		t = t[1:]
	}
	for len(t) > 0 && isQuote(t[len(t)-1]) {
		t = t[:len(t)-1]
	}
	return t
}

// tokenize returns the tokens of a list: words, texts in quotes, and single other characters.
func tokenize(list text) ([]text, error) {
	inWord := func(c char) bool {
		return c.ref != "" || c.r == '_' || c.r < unicode.MaxASCII && (unicode.IsLetter(c.r) || unicode.IsDigit(c.r)) ||
			strings.ContainsRune("/.+-():", c.r)
	}
	isQuote := func(c char) bool { return c.ref == "" && (c.r == '"' || c.r == '\'') }
	var tokens []text
	for i := 0; i < len(list); {
		c, start := list[i], i
		switch {
		case c.ref == "" && strings.ContainsRune(" \t\r\n", c.r):
			i++
			continue
		case c.ref == "" && c.r == '#':
			for i < len(list) && (list[i].ref != "" || list[i].r != '\n') {
				i++
			}
			continue
		case isQuote(c):
			for i++; i < len(list) && (list[i].ref != "" || list[i].r != c.r); {
				i++
			}
			if i == len(list) {
				return nil, errQuote
			}
			i++
		case inWord(c):
			for i < len(list) && (inWord(list[i]) || isQuote(list[i])) {
				i++
			}
		default:
			i++
		}
		tokens = append(tokens, list[start:i])
	}
	return tokens, nil
}

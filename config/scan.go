package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds of a file. Each keeps the parser from taking minutes: it needs more than one for 100,000 open brackets, and
// its time grows with the square of the number of keys in one map.
const (
	maxSize  = 1 << 20
	maxDepth = 32
	// maxPairs bounds the pairs of keys that stand in the same map. One map can have 4,000 keys.
	maxPairs = 4_000 * 4_000
)

// parse returns the one document of a file, nil if it is empty. It reports a syntax error to faults.
func (s *source) parse(faults *faultList) ast.Node {
	if at, message := s.unreadable(); message != "" {
		faults.add(at, "%s", message)
		return nil
	}
	s.text = newlines.Replace(strings.TrimPrefix(s.text, "\uFEFF"))
	s.tokens = lexer.Tokenize(s.text)
	if at, message := s.outOfBounds(); message != "" {
		faults.add(at, "%s", message)
		return nil
	}
	file, err := parseTokens(s.tokens)
	if err != nil {
		at, message := s.syntaxError(err)
		faults.add(at, "syntax error: %s", message)
		return nil
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if _, isDirective := doc.Body.(*ast.DirectiveNode); isDirective {
			faults.add(s.at(doc.Body.GetToken()), "directives such as %%YAML are not supported: leave them out")
			return nil
		}
		if body != nil && doc.Body != nil {
			faults.add(s.start(doc.Body), "a second document begins here: a file has one")
			return nil
		}
		if doc.Body != nil {
			body = doc.Body
		}
	}
	return body
}

// parseTokens calls the parser. A panic of the parser is an error: a running master reads the file too.
func parseTokens(tokens token.Tokens) (file *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the parser failed: %v", p)
		}
	}()
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

// newlines makes all ends of lines the same.
var newlines = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// unreadable returns what keeps the text from being YAML at all.
func (s *source) unreadable() (at place, message string) {
	whole := place{src: s}
	if len(s.text) > maxSize {
		return whole, fmt.Sprintf("the file has more than %d MiB: move units into included files", maxSize>>20)
	}
	bad := strings.IndexFunc(s.text, func(c rune) bool {
		return c == utf8.RuneError || c < ' ' && c != '\n' && c != '\r' && c != '\t' || c == 0x7f
	})
	if bad < 0 {
		return place{}, ""
	}
	before := s.text[:bad]
	at = place{
		src: s, line: int32(strings.Count(before, "\n") + 1),
		column: int32(utf8.RuneCountInString(before[strings.LastIndex(before, "\n")+1:]) + 1),
	}
	s.hidden = map[int]int{int(at.line): 0}
	c, size := utf8.DecodeRuneInString(s.text[bad:])
	if c == utf8.RuneError && size == 1 {
		return at, "the text is not UTF-8: save the file in this encoding"
	}
	return at, fmt.Sprintf("the character %U is not allowed", c)
}

// outOfBounds returns the first token beyond a bound.
func (s *source) outOfBounds() (at place, message string) {
	var open []level
	pairs := 0
	for _, tk := range s.tokens {
		open = closed(open, tk)
		before := len(open)
		open = opened(open, tk)
		top := len(open) - 1
		if top >= before && top >= 2*maxDepth { // a map in a list counts twice here; the tree is bounded exactly
			return s.at(tk), tooDeep
		}
		if top >= 0 && isEntry(tk, open[top]) {
			pairs += open[top].entries
			open[top].entries++
		}
		if pairs > maxPairs/2 {
			return s.at(tk), "too many keys in one map: move units into included files"
		}
	}
	return place{}, ""
}

const tooDeep = "nested too deeply: at most 32 levels are allowed"

// level is an open bracket, or a map or list that indentation delimits.
type level struct {
	bracket token.Type // of the opening bracket; 0 for indentation
	column  int
	entries int
}

// opened returns the levels that are open after the token has opened one.
func opened(open []level, tk *token.Token) []level {
	switch tk.Type {
	case token.MappingStartType, token.SequenceStartType:
		return append(open, level{bracket: tk.Type})
	case token.SequenceEntryType, token.MappingKeyType, token.MappingValueType:
		column := startColumn(tk)
		if top := len(open) - 1; top < 0 || open[top].bracket == 0 && open[top].column < column {
			return append(open, level{column: column})
		}
	default:
	}
	return open
}

// startColumn returns the column of an entry of a list or map. That of a map may begin with an anchor or a tag.
func startColumn(tk *token.Token) int {
	column, line := tk.Position.Column, tk.Position.Line
	if tk.Type != token.MappingValueType {
		return column
	}
	for before := tk.Prev; before != nil && before.Position.Line == line; before = before.Prev {
		column = before.Position.Column
		marked := before.Prev != nil && before.Prev.Type == token.TagType ||
			before.Prev != nil && before.Prev.Prev != nil && before.Prev.Prev.Type == token.AnchorType ||
			before.Prev != nil && before.Prev.Type == token.AnchorType
		if !marked {
			break
		}
	}
	return column
}

// isEntry reports whether the token is one of each entry of a map.
func isEntry(tk *token.Token, in level) bool {
	switch tk.Type {
	case token.MappingValueType, token.MappingKeyType:
		return true
	case token.CollectEntryType:
		return in.bracket == token.MappingStartType
	default:
		return false
	}
}

// closed returns the levels that are open after the token has closed some.
func closed(open []level, tk *token.Token) []level {
	switch tk.Type {
	case token.MappingEndType, token.SequenceEndType:
		for top, level := range slices.Backward(open) {
			if level.bracket != 0 {
				return open[:top]
			}
		}
	case token.CommentType:
	default:
		for top := len(open) - 1; top >= 0 && open[top].bracket == 0 && tk.Position.Column < open[top].column; top-- {
			open = open[:top]
		}
	}
	return open
}

// syntaxError returns the place and the reason of an error of the parser.
func (s *source) syntaxError(err error) (place, string) {
	var located interface {
		GetMessage() string
		GetToken() *token.Token
	}
	if !errors.As(err, &located) || located.GetToken() == nil {
		return place{src: s}, "the text is not YAML"
	}
	message := located.GetMessage()
	for _, reason := range syntaxReasons {
		if reason.parser == message {
			message = reason.plain
			break
		}
	}
	if text := strings.TrimSpace(located.GetToken().Value); (text == "}" || text == "]") &&
		located.GetMessage() == "value is not allowed in this context" {
		message = "this " + text + " closes nothing: there is one too many"
	}
	if strings.HasSuffix(message, "is a reserved character") {
		message += ": a text that begins with it needs quotes"
	}
	if strings.Contains(message, "\t") {
		message = strings.ReplaceAll(message, "\t", `\t`) + ": indent with spaces, not with tabs"
	}
	return s.at(located.GetToken()), message
}

// syntaxReasons are messages of the parser, and what they mean to the person who has written the file.
var syntaxReasons = []struct{ parser, plain string }{
	{
		"value is not allowed in this context",
		"this does not fit to the lines above: indent the keys of a map, and the items of a list, by the same number " +
			"of spaces",
	},
	{
		"mapping value is not allowed in this context",
		"keys are below a value, or a colon is in it: indent the next line like the other keys of the map, or quote " +
			"the value",
	},
	{"non-map value is specified", "this is no key with a value: write a key, a colon and a space before the value"},
	{"unexpected key name", "this is no key with a value: write a key, a colon and a space before the value"},
	{
		"value is not allowed in this context. map key-value is pre-defined",
		"a text follows a complete value: quote all of it, such as \"*/5 * * * *\"",
	},
	{
		"block sequence entries are not allowed in this context",
		"a list begins in the line below its key, or is in brackets: [a, b]",
	},
	{"undefined alias name", "a * begins an alias: quote a text such as \"* * * * *\""},
	{"unexpected scalar value type", "a * begins an alias, and an & an anchor: quote a text that begins with one"},
	{"could not find flow map content", "the map has no end: a } is missing"},
	{"undefined anchor name", "an & begins an anchor: quote a text that contains it"},
	{"sequence end token ']' not found", "the list has no end: a ] is missing"},
	{"could not find flow mapping end token '}'", "the map has no end: a } is missing"},
	{"',' or ']' must be specified", "the list before this has no end: a comma or a ] is missing"},
	{"',' or '}' must be specified", "the map before this has no end: a comma or a } is missing"},
	{"could not find '[' character corresponding to ']'", "this ] closes no list: a [ is missing"},
	{"could not find '{' character corresponding to '}'", "this } closes no map: a { is missing"},
	{"could not find end character of double-quoted text", "the text has no end: a \" is missing"},
	{"could not find end character of single-quoted text", "the text has no end: a ' is missing"},
}

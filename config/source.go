package config

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/core-tools/hsu-master/internal/nearest"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// source is the text of one file.
type source struct {
	name   string // as shown in faults
	dir    string // relative paths start here
	text   string
	tokens token.Tokens
	// foreign is set for an included file that has no key "units". A pattern such as "*" may match any file, even one
	// of secrets: none of its lines is shown.
	foreign bool
	split   []string    // the lines, once they are needed
	hidden  map[int]int // the columns from which lines may contain a secret, once they are needed
}

// release drops what only faults need. The nodes of a file keep its source.
func (s *source) release() { s.text, s.tokens, s.split, s.hidden = "", nil, nil, nil }

func (s *source) lines() []string {
	if s.split == nil {
		s.split = strings.Split(s.text, "\n")
		s.split = append(s.split, "") // the parser places some errors behind the last line
	}
	return s.split
}

// unitsKey matches the key of a file of units, even in a text that cannot be parsed.
var unitsKey = regexp.MustCompile(`\bunits["']?\s*:`)

// secret reports whether a line may contain the value of an environment variable, or another secret.
// It may be shown up to a column before that value.
func (s *source) secret(line, upTo int) bool {
	if s.foreign {
		return true
	}
	if s.hidden == nil {
		s.hidden = secretLines(s.tokens)
	}
	from, hidden := s.hidden[line]
	return line > len(s.lines()) || hidden && upTo >= from
}

// secretLines returns the lines of the values of keys that may be secret, with the columns from which they must not be
// shown. It looks at tokens, because it must work for a text that cannot be parsed.
func secretLines(tokens token.Tokens) map[int]int {
	hidden := map[int]int{}
	depth := 0 // of brackets
	var key *token.Token
	keyDepth := 0
	first := 0 // the number of the first token of its values
	last := 0  // the column up to which a token ends them
	for i, tk := range tokens {
		if key != nil && depth <= keyDepth && tk.Position.Line > key.Position.Line &&
			(keyDepth > 0 || tk.Position.Column <= last) {
			key = nil
		}
		if key == nil && i+1 < len(tokens) && tokens[i+1].Type == token.MappingValueType && secretKey(tk.Value) {
			key, keyDepth, first, last = tk, depth, i+2, tk.Position.Column
			if first < len(tokens) && tokens[first].Position.Line > tk.Position.Line &&
				tokens[first].Position.Column == last {
				last-- // the values lack their indentation
			}
		}
		if key != nil && i >= first {
			// The position of a text of several lines is that of its last line or its first.
			height := strings.Count(strings.TrimSpace(tk.Origin), "\n")
			for line := tk.Position.Line - height; line <= tk.Position.Line+height; line++ {
				column := tk.Position.Column
				if height > 0 {
					column = 0
				}
				if before, found := hidden[line]; !found || column < before {
					hidden[line] = column
				}
			}
		}
		switch tk.Type {
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		default:
		}
	}
	return hidden
}

// secretKey reports whether the values of a key are not shown: environment variables, headers of requests, and
// whatever templates for them exist. Other names for them and misspelled ones count too.
func secretKey(name string) bool {
	if other := otherNames[name]; other != "" {
		name = other
	}
	return strings.HasPrefix(name, ignoredPrefix) || slices.Contains(secretKeys, name) ||
		len(name) < maxKey && nearest.Name(name, secretKeys) != ""
}

var secretKeys = []string{"environment", "headers"}

// maxKey bounds the bytes of a name that is compared with those of keys.
const maxKey = 32

// absolute returns the path that a relative one in the file stands for.
func (s *source) absolute(name string) string {
	if name == "" || filepath.IsAbs(name) || s == nil {
		return name
	}
	return filepath.Join(s.dir, name)
}

// start returns the place where a node begins. The token of a map without brackets is its first colon.
func (s *source) start(n ast.Node) place {
	if m, isMap := n.(*ast.MappingNode); isMap && !m.IsFlowStyle && len(m.Values) > 0 {
		n = m.Values[0].Key
	} else if m, isMap := n.(*ast.MappingValueNode); isMap {
		n = m.Key
	}
	return s.at(n.GetToken())
}

// at returns the place of a token.
func (s *source) at(tk *token.Token) place {
	width := utf8.RuneCountInString(tk.Value)
	if tk.Type == token.SingleQuoteType || tk.Type == token.DoubleQuoteType {
		width += len(`""`)
	}
	line, column := max(1, tk.Position.Line), max(1, tk.Position.Column)
	return place{src: s, line: int32(line), column: int32(column), width: int32(max(1, width))}
}

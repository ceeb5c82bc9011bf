package config

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/core-tools/hsu-master/internal/placeholder"
)

// use is the purpose of a text. It decides which placeholders the text may contain.
type use uint8

const (
	plain    use = iota
	argument     // of a command: placeholders, but no content of files, which ps would show
	target       // an address or URL of a health check: placeholders
	variable     // of the environment: placeholders, and it is secret
	header       // of a request: it is secret
)

func (u use) placeholders() bool { return u == argument || u == target || u == variable }

func (u use) secret() bool { return u == variable || u == header }

// substitute returns the text of a node with ${VAR}, ${VAR:-default}, ${file:PATH} and $$ replaced. Placeholders
// remain, because only the start of a worker gives them values.
func (r *reader) substitute(n *node, in use) (string, bool) {
	text, failed := n.text, ""
	if strings.Contains(text, "$") {
		text, failed = r.expand(n, in)
	}
	if failed == "" && in.placeholders() {
		if _, err := placeholder.Expand(text, placeholder.Known); err != nil {
			failed = err.Error()
			if in.secret() {
				failed = "a brace begins no placeholder: " + placeholder.Help
			}
		}
	}
	if failed != "" {
		r.fault(n, "%s", failed)
		return "", false
	}
	return text, true
}

// expand replaces what begins with a dollar. failed is the reason why it cannot.
func (r *reader) expand(n *node, in use) (text, failed string) {
	var b strings.Builder
	rest := n.text
	for {
		before, after, found := strings.Cut(rest, "$")
		b.WriteString(before)
		switch {
		case !found:
			return b.String(), ""
		case strings.HasPrefix(after, "$"):
			b.WriteByte('$')
			rest = after[1:]
			if in.placeholders() && strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, "{{") {
				b.WriteByte('{') // $${NAME} is the text ${NAME}, which has no placeholder
			}
		case strings.HasPrefix(after, "{"):
			inner, behind, closed := strings.Cut(after[1:], "}")
			if !closed {
				return "", "${ has no closing brace: write $$ for a dollar"
			}
			content, failed := r.reference(n, inner, in)
			if failed != "" {
				return "", failed
			}
			if in.placeholders() {
				content = strings.ReplaceAll(content, "{", "{{") // a value of the host has no placeholders
			}
			b.WriteString(content)
			rest = behind
		default:
			if name := leadingName(after); name != "" && !in.secret() {
				return "", fmt.Sprintf("$%.60s is ambiguous: write ${%.60s} for the variable, or $$%.60s for the text",
					name, name, name)
			} else if name != "" {
				return "", "a dollar before a name is ambiguous: write ${NAME} for the variable, or $$NAME for the text"
			}
			b.WriteByte('$')
			rest = after
		}
	}
}

// maxInserted bounds what one reference inserts, in bytes.
const maxInserted = 128 << 10

// reference returns what ${inner} stands for.
func (r *reader) reference(n *node, inner string, in use) (content, failed string) {
	name, fallback, hasFallback := strings.Cut(inner, ":-")
	if file, isFile := strings.CutPrefix(inner, "file:"); isFile {
		name = inner
		content, failed = r.fileContent(n, file, in)
	} else {
		content, failed = r.variable(name, fallback, hasFallback)
	}
	switch {
	case failed != "":
		return "", failed
	case len(content) > maxInserted:
		return "", fmt.Sprintf("${%.60s} stands for more than %d bytes", name, maxInserted)
	case strings.ContainsRune(content, 0):
		return "", fmt.Sprintf("${%.60s} contains a NUL character", name)
	}
	return content, ""
}

// variable returns the value of a variable of the master. As in a shell, the fallback replaces an empty value too.
func (r *reader) variable(name, fallback string, hasFallback bool) (content, failed string) {
	if name == "" || leadingName(name) != name {
		return "", "${...} must be ${NAME}, ${NAME:-DEFAULT} or ${file:PATH}: write $$ for a dollar"
	}
	value, set := r.host.Variable(name)
	switch {
	case hasFallback && value == "":
		return fallback, ""
	case !set:
		const unset = "the variable %.60s is not set: set it for the master, or write ${%.60s:-DEFAULT}"
		return "", fmt.Sprintf(unset, name, name)
	}
	return value, ""
}

func (r *reader) fileContent(n *node, file string, in use) (content, failed string) {
	switch {
	case in == argument:
		return "", "${file:} is not allowed in a command, because ps shows it: use a variable of the environment"
	case file == "":
		return "", "${file:} names no file"
	}
	path := n.at.src.absolute(file)
	bytes, err := readTrusted(r.host, path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Sprintf("there is no file %.100q", file)
	case err != nil:
		return "", err.Error() // it names the folder or file
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(bytes), "\n"), "\r"), ""
}

// leadingName returns the name of a variable that a text begins with, or "".
func leadingName(s string) string {
	end := strings.IndexFunc(s, func(c rune) bool {
		return c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9')
	})
	if end < 0 {
		end = len(s)
	}
	if end > 0 && s[0] >= '0' && s[0] <= '9' {
		return ""
	}
	return s[:end]
}

package config

import (
	"fmt"
	"slices"
	"strings"
)

// The placeholders that commands, environment variables and the targets of health checks may contain.
const (
	PlaceholderPort    = "port"    // the port of the worker
	PlaceholderUnit    = "unit"    // the name of the unit
	PlaceholderWorker  = "worker"  // the id of the worker
	PlaceholderReplica = "replica" // the number of the replica, from 0
)

var placeholders = []string{PlaceholderPort, PlaceholderUnit, PlaceholderWorker, PlaceholderReplica}

const placeholderHelp = "use {port}, {unit}, {worker} or {replica}, or {{ for a brace"

// Expand replaces each {placeholder} by its value, and {{ by a brace. It returns an error if value does not know a
// placeholder.
func Expand(text string, value func(placeholder string) (string, bool)) (string, error) {
	if !strings.Contains(text, "{") {
		return text, nil
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "{")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		if strings.HasPrefix(after, "{") {
			b.WriteByte('{')
			text = after[1:]
			continue
		}
		name, rest, closed := strings.Cut(after, "}")
		content, known := value(name)
		if !closed || !known {
			shown := "{" + name
			if closed {
				shown += "}"
			}
			return "", fmt.Errorf("%.60q is no placeholder: %s", shown, placeholderHelp)
		}
		b.WriteString(content)
		text = rest
	}
}

func knownPlaceholder(name string) (string, bool) { return "", slices.Contains(placeholders, name) }

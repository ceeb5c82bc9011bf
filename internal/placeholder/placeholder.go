// Package placeholder replaces the placeholders in the texts of a unit by their values in one worker.
package placeholder

import (
	"fmt"
	"slices"
	"strings"
)

// The placeholders that commands, environment variables and the targets of health checks may contain.
const (
	Port    = "port"    // the port of the worker
	Unit    = "unit"    // the name of the unit
	Worker  = "worker"  // the id of the worker
	Replica = "replica" // the number of the replica, from 0
)

// Help names the placeholders in messages.
const Help = "use {port}, {unit}, {worker} or {replica}, or {{ for a brace"

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
			return "", fmt.Errorf("%.60q is no placeholder: %s", shown, Help)
		}
		b.WriteString(content)
		text = rest
	}
}

// Known accepts every placeholder and returns an example value, for checks of a text that is expanded later.
func Known(name string) (string, bool) {
	return "1", slices.Contains([]string{Port, Unit, Worker, Replica}, name)
}

// In reports whether the text mentions the placeholder with the name. "{{port}" does not: it is a brace and "port}".
func In(text, name string) bool {
	return strings.Contains(strings.ReplaceAll(text, "{{", ""), "{"+name+"}")
}

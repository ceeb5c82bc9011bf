// Package nearest suggests the name that a person may have meant.
package nearest

import (
	"fmt"
	"strings"

	"github.com/xrash/smetrics"
)

// alike is the minimum similarity of a suggested name. Below it, suggestions mislead more often than they help.
const alike = 0.8

// longest bounds the given names that are compared, in bytes. The time of a comparison grows with the square of it.
const longest = 100

// DidYouMean returns ` (did you mean "NAME"?)` with the name most similar to the given one, or "" if none is
// similar enough.
func DidYouMean(given string, names []string) string {
	if found := Name(given, names); found != "" {
		return fmt.Sprintf(" (did you mean %q?)", found)
	}
	return ""
}

// Name returns the name most similar to the given one, or "" if none is similar enough.
func Name(given string, names []string) string {
	if given == "" || len(given) > longest {
		return ""
	}
	best, found := alike, ""
	bare := strings.TrimLeft(given, "-") // the dashes of flags make them all alike
	for _, name := range names {
		// The boost threshold and the prefix length are those that Winkler published.
		if likeness := smetrics.JaroWinkler(bare, strings.TrimLeft(name, "-"), 0.7, 4); likeness >= best {
			best, found = likeness, name
		}
	}
	return found
}

package unit

import (
	"cmp"
	"slices"
	"strings"
)

// minMasked is the length of the shortest value that [Mask] replaces. A shorter one, such as "info", would also be
// found in words that have nothing to do with it.
const minMasked = 6

// Mask replaces the values of environment variables, which may be secret, in a text that a program with this
// environment has written. In place of the value is the name of the variable, such as $TOKEN. Of a value with several
// lines, each line is replaced.
func Mask(text string, env []string) string {
	type secret struct{ value, name string }
	var secrets []secret
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		for line := range strings.Lines(value) {
			if line = strings.TrimSpace(line); len(line) >= minMasked && strings.Contains(text, line) {
				secrets = append(secrets, secret{line, "$" + name})
			}
		}
	}
	// One value may be part of another.
	slices.SortStableFunc(secrets, func(a, b secret) int { return cmp.Compare(len(b.value), len(a.value)) })
	var replaced []string
	for _, s := range secrets {
		replaced = append(replaced, s.value, s.name)
	}
	return strings.NewReplacer(replaced...).Replace(text)
}

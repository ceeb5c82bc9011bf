package importer

import (
	"errors"
	"strings"

	"github.com/core-tools/hsu-master/config"
)

var (
	errMap  = errors.New("must be a map")
	errList = errors.New("must be a list")
	errText = errors.New("must be a text or number")
)

// field imports the value of a key of a foreign map. The error is the reason for which the key becomes a comment.
type field func(value *config.Tree) error

// walk imports the keys of a map in their order. A key without a field becomes a comment of b.
func walk(b *block, format, path string, of *config.Tree, fields map[string]field) {
	for _, e := range of.Entries {
		take, known := fields[e.Name]
		if !known {
			b.note("%s %s%s: %s: no counterpart", format, path, e.Name, flat(e.Value))
			continue
		}
		if err := take(e.Value); err != nil {
			b.note("%s %s%s: %s: %s", format, path, e.Name, flat(e.Value), err)
		}
	}
}

// nested returns a field whose value is a map with fields of its own.
func nested(b *block, format, path string, fields map[string]field) field {
	return func(value *config.Tree) error {
		if value.Kind != config.TreeMap && value.Kind != config.TreeNull {
			return errMap
		}
		walk(b, format, path+".", value, fields)
		return nil
	}
}

// flat returns a value in a line of its own, as YAML has it.
func flat(t *config.Tree) string {
	switch t.Kind {
	case config.TreeNull:
		return "null"
	case config.TreeText:
		return inYAML(t.Text)
	case config.TreeList:
		items := make([]string, len(t.Items))
		for i, item := range t.Items {
			items[i] = flat(item)
		}
		return "[" + strings.Join(items, ", ") + "]"
	case config.TreeMap:
	}
	entries := make([]string, len(t.Entries))
	for i, e := range t.Entries {
		entries[i] = inYAML(e.Name) + ": " + flat(e.Value)
		if secret(e.Name) && e.Value.Kind == config.TreeText {
			entries[i] = inYAML(e.Name) + ": ..."
		}
	}
	return "{" + strings.Join(entries, ", ") + "}"
}

// secret reports whether a value of a key without a counterpart is not repeated.
func secret(name string) bool {
	lower := strings.ToLower(name)
	return strings.Contains(lower, "password") || strings.Contains(lower, "secret") || strings.Contains(lower, "token")
}

// texts returns the texts of a list, or the one text that stands in place of a list.
func texts(t *config.Tree) ([]string, bool) {
	if t.Kind == config.TreeText {
		return []string{t.Text}, true
	}
	list := make([]string, 0, len(t.Items))
	for _, item := range t.Items {
		if item.Kind != config.TreeText {
			return nil, false
		}
		list = append(list, item.Text)
	}
	return list, t.Kind == config.TreeList
}

// environment imports a list of NAME=VALUE, or a map.
func environment(b *block, format string, t *config.Tree, expand func(value string) (text, error)) error {
	list, ok := texts(t)
	for _, e := range t.Entries {
		list, ok = append(list, e.Name+"="+e.Value.Text), true
	}
	if !ok {
		return errList
	}
	for _, pair := range list {
		name, value, isPair := strings.Cut(pair, "=")
		if !isPair {
			b.note("%s environment: %s: is not NAME=VALUE", format, name)
			continue
		}
		expanded, err := expand(value)
		if err != nil {
			b.note("%s environment: %s: %s", format, name, err)
			continue
		}
		b.at("environment").named(name, expanded.argument())
	}
	return nil
}

// textField returns a field that takes a text.
func textField(take func(s string) error) field {
	return func(t *config.Tree) error {
		if t.Kind != config.TreeText {
			return errText
		}
		return take(t.Text)
	}
}

// copied returns a field whose text becomes the value of a key of ours as it is.
func copied(b *block, path string) field {
	return textField(func(s string) error {
		b.set(path, plainLiteral(s))
		return nil
	})
}

// inSeconds returns a field whose number of seconds becomes a duration of ours.
func inSeconds(b *block, path string) field {
	return textField(func(s string) error { return setSeconds(b, path, s) })
}

// ignored is a field that needs no counterpart.
func ignored(*config.Tree) error { return nil }

// unlessFalse returns a field that has no counterpart if it is set, for the reason.
func unlessFalse(reason error) field {
	return textField(func(s string) error {
		if isFalse(s) {
			return nil
		}
		return reason
	})
}

// textOf returns the text of a key, or "".
func textOf(t *config.Tree, name string) string {
	if value := t.Get(name); value != nil {
		return value.Text
	}
	return ""
}

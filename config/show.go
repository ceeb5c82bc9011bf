package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Setting is a value in effect, and where it comes from.
type Setting struct {
	Path []string // the keys that lead to it
	// Value is a text, or a list of texts or of maps of these, as the file has it: variables are not replaced, because
	// they may be secret.
	Value any
	// Default means that no file has the value.
	Default bool
	// Inherited means that it comes from "defaults:".
	Inherited bool
	File      string
	Line      int
}

// Settings returns all values in effect, in the order of the reference. "defaults:" is part of the units.
func (f *File) Settings() []Setting {
	var s settings
	keys := slices.DeleteFunc(new(File).keys(), func(k key) bool { return k.name == "defaults" || k.name == "units" })
	s.object(nil, keys, f.main, 0)
	unitKeys := new(Unit).keys()
	for i, u := range f.Units {
		s.object([]string{"units", u.Name}, unitKeys, f.units[i], setOf(u.Kind))
		if u.Log.To != LogToFile {
			s = slices.DeleteFunc(s, func(s Setting) bool { return s.rotates(u.Name) })
		}
	}
	return s
}

// rotates reports whether the setting is about the files of a unit's output.
func (s Setting) rotates(unit string) bool {
	return len(s.Path) == 4 && s.Path[1] == unit && s.Path[2] == "log" && s.Path[3] != "to"
}

type settings []Setting

func (s *settings) object(path []string, keys []key, n *node, unit kinds) {
	for _, k := range keys {
		if !k.kinds.allow(unit) {
			continue
		}
		e := entryOf(n, k.name)
		at := slices.Concat(path, []string{k.name})
		switch v := k.value.(type) {
		case fieldsValue:
			if !k.optional || !e.value.blank() {
				s.object(at, v.keys, e.value, unit)
			}
		case textMapValue:
			for _, variable := range entriesOf(e.value) {
				s.add(slices.Concat(at, []string{variable.name}), variable)
			}
		case dependenciesValue:
			for _, dependency := range used(entriesOf(e.value)) {
				s.add(slices.Concat(at, []string{dependency.name}), dependency)
			}
		case servicesValue:
			for _, service := range used(entriesOf(e.value)) {
				s.object(slices.Concat(at, []string{service.name}), new(ServiceOptions).keys(), service.value, 0)
			}
		default:
			if e.value.blank() {
				if k.defaultFor(unit) == "" {
					continue
				}
				e = entry{value: defaultNode(k.defaultFor(unit))}
			}
			s.add(at, e)
		}
	}
}

func (s *settings) add(path []string, e entry) {
	added := Setting{Path: path, Value: e.value.plain(), Inherited: e.inherited}
	if src := e.value.at.src; src != nil {
		added.File, added.Line = src.name, int(e.value.at.line)
	} else {
		added.Default = true
	}
	*s = append(*s, added)
}

// used returns the entries that are not ignored.
func used(entries []entry) []entry {
	return slices.DeleteFunc(slices.Clone(entries), func(e entry) bool { return ignored(e.name) })
}

// plain returns the text or the list of texts of a node.
func (n *node) plain() any {
	if n.kind != listNode {
		return n.text
	}
	if slices.ContainsFunc(n.items, func(item *node) bool { return item.kind == mapNode }) {
		return plainMaps(n.items)
	}
	list := make([]string, len(n.items))
	for i, item := range n.items {
		list[i] = item.text
	}
	return list
}

// plainMaps returns the maps of a list.
func plainMaps(items []*node) []map[string]any {
	list := make([]map[string]any, len(items))
	for i, item := range items {
		list[i] = map[string]any{}
		for _, e := range used(entriesOf(item)) {
			list[i][e.name] = e.value.plain()
		}
	}
	return list
}

// Origin says where the value comes from.
func (s Setting) Origin() string {
	switch {
	case s.Default:
		return "default"
	case s.Inherited:
		return fmt.Sprintf("defaults, %s:%d", s.File, s.Line)
	}
	return fmt.Sprintf("%s:%d", s.File, s.Line)
}

// commentColumn is where the origins stand in the output of WriteYAML.
const commentColumn = 56

// WriteYAML writes all values in effect in the form of one file, each with its origin as a comment. The units of
// included files are part of it.
func (f *File) WriteYAML(w io.Writer) error {
	var above []string
	var out bytes.Buffer
	for _, s := range f.Settings() {
		last := len(s.Path) - 1
		if last == 0 && s.Path[0] == "include" {
			continue
		}
		common := 0
		for common < last && common < len(above) && above[common] == s.Path[common] {
			common++
		}
		for depth := common; depth < last; depth++ {
			fmt.Fprintf(&out, "%s%s:\n", indent(depth), inYAML(s.Path[depth]))
		}
		above = s.Path[:last]
		line := fmt.Sprintf("%s%s: %s", indent(last), inYAML(s.Path[last]), valueInYAML(s.Value))
		fmt.Fprintf(&out, "%-*s # %s\n", commentColumn, line, printable(s.Origin()))
	}
	if len(f.Units) == 0 {
		fmt.Fprintln(&out, "units: {}")
	}
	_, err := w.Write(out.Bytes())
	return err
}

func indent(depth int) string { return strings.Repeat("  ", depth) }

func valueInYAML(value any) string {
	var words []string
	switch value := value.(type) {
	case string:
		return inYAML(value)
	case []string:
		for _, word := range value {
			words = append(words, inYAML(word))
		}
	case []map[string]any:
		for _, m := range value {
			var pairs []string
			for _, name := range slices.Sorted(maps.Keys(m)) {
				pairs = append(pairs, inYAML(name)+": "+valueInYAML(m[name]))
			}
			words = append(words, "{"+strings.Join(pairs, ", ")+"}")
		}
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// needsNoQuotes matches texts that mean themselves in YAML, also in brackets.
var needsNoQuotes = regexp.MustCompile(`^[A-Za-z0-9_./][A-Za-z0-9_./+:@%=-]*$`)

// inYAML returns a text so that YAML reads it as one.
func inYAML(text string) string {
	if needsNoQuotes.MatchString(text) && !strings.HasSuffix(text, ":") && !strings.EqualFold(text, "null") {
		return text
	}
	var quoted bytes.Buffer
	encoder := json.NewEncoder(&quoted)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text) // a string cannot fail
	return strings.TrimSuffix(quoted.String(), "\n")
}

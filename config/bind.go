package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/core-tools/hsu-master/internal/nearest"
)

// reader reads nodes into values.
type reader struct {
	host   Host
	faults *faultList
	path   []string // the keys that lead to the node being read
	unit   kinds    // of the unit that is being read; 0 if it is not known
}

// fault reports a fault of the value that is being read.
func (r *reader) fault(n *node, format string, args ...any) { r.faultAt(n.at, format, args...) }

func (r *reader) faultAt(at place, format string, args ...any) {
	r.faults.addFor(r.prefix(), at, format, args...)
}

// conflict reports that the value at a path below n does not fit to others.
func (r *reader) conflict(n *node, path, format string, args ...any) {
	r.within(path, func() { r.fault(n.deepest(strings.Split(path, ".")...), format, args...) })
}

// prefix names the value that is being read.
func (r *reader) prefix() string {
	if len(r.path) == 0 {
		return ""
	}
	var b strings.Builder
	for i, name := range r.path {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(pathName(name))
	}
	return b.String() + ": "
}

// pathName returns a key for the path of a value. One that would be taken for something else has quotes.
func pathName(name string) string {
	odd := strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c == ':' || c == '"' })
	if odd || name == "" || len(name) > maxShown {
		return fmt.Sprintf("%.100q", name)
	}
	return name
}

// within calls read with a key added to the path.
func (r *reader) within(name string, read func()) {
	r.path = append(r.path, name)
	read()
	r.path = r.path[:len(r.path)-1]
}

// quote returns the text of the file for a value that is not secret. Its variables are not replaced.
func (r *reader) quote(n *node) string {
	if len(n.text) > maxShown {
		return strconv.Quote(strings.ToValidUTF8(n.text[:maxShown], "") + "...")
	}
	return strconv.Quote(n.text)
}

// example returns a value that was given in place of a list, to show it as an element.
func (r *reader) example(n *node) string {
	if n.kind != textNode || len(n.text) > maxShown {
		return "a, b"
	}
	if !strings.Contains(n.at.src.text, n.text) { // items below each other, without dashes
		return strings.Join(strings.Fields(n.text), ", ")
	}
	return n.text
}

// text returns the text of a node with its variables replaced. It reports a node that has none.
func (r *reader) text(n *node, in use, wanted string) (string, bool) {
	switch n.kind {
	case textNode:
		return r.substitute(n, in)
	case nullNode:
		r.fault(n, "has no value: must be %s", wanted)
	case listNode:
		r.fault(n, "is a list: must be %s", wanted)
	case mapNode:
		hint := ""
		if in != plain { // such as "{port}"
			hint = "; a text that begins with a brace needs quotes"
		}
		r.fault(n, "is a map: must be %s%s", wanted, hint)
	case faultyNode:
	}
	return "", false
}

// entries returns the entries of a map. A node without a value counts as an empty one.
func (r *reader) entries(n *node) ([]entry, bool) {
	switch n.kind {
	case mapNode:
		return n.entries, true
	case nullNode:
		return nil, true
	case faultyNode:
	default:
		r.fault(n, "must be a map of keys and values")
	}
	return nil, false
}

// object reads a map with the given keys.
func (r *reader) object(n *node, keys []key) {
	if n.kind == textNode || n.kind == listNode {
		r.fault(n, "must be a map of keys and values%s", r.mapFor(n, keys))
		return
	}
	entries, ok := r.entries(n)
	if !ok {
		return
	}
	for i, e := range entries {
		k := find(keys, e.name)
		switch {
		case i+1 < len(entries) && decimalComma(e, entries[i+1]):
		case i > 0 && decimalComma(entries[i-1], e):
			r.afterComma(entries[i-1], e)
		case k == nil && !ignored(e.name):
			r.unknownKey(n, e, keys)
		case k == nil || e.value.kind == faultyNode:
		case !k.kinds.allow(r.unit):
			r.faultAt(e.at, "%q is not for %s units: it is for kind: %s", e.name, kindName(r.unit), k.kinds)
		default:
			r.within(e.name, func() { k.value.read(r, e.value) })
		}
	}
}

// decimalComma reports whether a number in braces was written with a comma, such as {timeout: 1,5s}: it ends there, and
// a key without a value follows.
func decimalComma(e, next entry) bool {
	return e.value.kind == textNode && e.value.text != "" && strings.Trim(e.value.text, "0123456789") == "" &&
		next.value.kind == nullNode && next.at.src == e.at.src && next.at.line == e.at.line &&
		next.name != "" && next.name[0] >= '0' && next.name[0] <= '9'
}

// afterComma reports the rest of a number that was written with a comma.
func (r *reader) afterComma(begin, rest entry) {
	instead := "the number without it"
	if given := begin.value.text + "," + rest.name; decimalPoint(given) != given {
		instead = decimalPoint(given)
	}
	r.within(begin.name, func() {
		r.faultAt(rest.at, "the comma before this ends the value: write %.100s", instead)
	})
}

// mapFor returns what to write in place of a text or list: the key that takes the word, or else the keys.
func (r *reader) mapFor(n *node, keys []key) string {
	word := n.text
	if n.kind == listNode && slices.ContainsFunc(n.items, func(item *node) bool { return item.kind == mapNode }) {
		return ": leave out the dash"
	}
	if n.kind == listNode && len(n.items) == 1 {
		word = n.items[0].text
	}
	for _, k := range keys {
		if !k.kinds.allow(r.unit) {
			continue
		}
		for _, w := range []string{word, otherWords[word]} {
			if w != "" && slices.Contains(k.value.form().allowed, w) {
				return ", such as {" + k.name + ": " + w + "}"
			}
		}
		if n.kind == textNode && k.takesShort(word) {
			return ", such as {" + k.name + ": " + strings.TrimPrefix(word, "SIG") + "}"
		}
		if k.name == "url" && n.kind == textNode && strings.HasPrefix(word, "http") && strings.Contains(word, "://") {
			return ", such as {type: http, url: " + r.quote(n) + "}"
		}
	}
	return ": " + strings.Join(names(keys, r.unit), ", ")
}

// takesShort reports whether a word that was given in place of a map is probably for the key.
func (k key) takesShort(word string) bool {
	switch k.name {
	case "signal":
		return slices.Contains(signals, strings.TrimPrefix(word, "SIG"))
	case "timeout", "max_size":
		_, isDuration := parseDuration(word)
		_, isSize := parseSize(word)
		return k.name == "timeout" && isDuration == nil || k.name == "max_size" && isSize == nil
	}
	return false
}

func (r *reader) unknownKey(in *node, e entry, keys []key) {
	if r.faults.full() {
		return
	}
	r.faultAt(e.at, "unknown key %.100q%s", e.name, r.insteadOf(in, e, keys))
}

// insteadOf returns what to write in place of an unknown key of a map.
func (r *reader) insteadOf(in *node, e entry, keys []key) string {
	if bare := strings.TrimSpace(e.name); bare != e.name && find(keys, bare) != nil {
		return ": it has a blank that is no plain space before or behind it"
	}
	if top := find(keys, "service_options") != nil; top && !meansUnits(e) {
		switch {
		case e.value.get("command") != nil || e.value.get("discover") != nil:
			return ": a unit belongs below the key units, indented"
		case find(new(Unit).keys(), e.name) != nil:
			return ": it is a key of a unit: units: {NAME: {" + e.name + ": ...}}"
		}
	}
	known := names(keys, r.unit)
	likely := likelyName(e.name, known)
	var meant []string
	if likely != "" {
		meant = append(meant, strconv.Quote(likely))
	}
	for _, k := range keys {
		twin := k.name == "defaults" || k.name == "readiness" || k.name == "liveness"
		if twin || otherNames[e.name] != "" || !k.kinds.allow(r.unit) {
			continue
		}
		has := likely == ""
		switch of := k.value.(type) {
		case fieldsValue:
			has = find(of.keys, e.name) != nil
			if has && !emptyBefore(in, k.name, e) {
				meant = append(meant, strconv.Quote(k.name+"."+e.name))
			}
		case textMapValue, dependenciesValue: // any name may be meant for them
		default:
			has = false
		}
		if has && emptyBefore(in, k.name, e) {
			return ": indent it below " + k.name
		}
	}
	if len(meant) == 0 {
		return ": must be one of " + strings.Join(known, ", ")
	}
	return " (did you mean " + strings.Join(meant, " or ") + "?)"
}

// emptyBefore reports whether a map has the key without a value, and before an entry.
func emptyBefore(n *node, name string, e entry) bool {
	empty := entryOf(n, name)
	return empty.value != nil && empty.value.kind == nullNode && empty.at.src == e.at.src && empty.at.line < e.at.line
}

// likelyName returns the key that an unknown one probably stands for, or "".
func likelyName(name string, known []string) string {
	other := otherNames[name]
	if first, _, _ := strings.Cut(other, "."); slices.Contains(known, first) {
		return other
	}
	return nearest.Name(name, known)
}

// meansUnits reports whether an unknown key of a file probably stands for "units".
func meansUnits(e entry) bool {
	return !ignored(e.name) && likelyName(e.name, names(new(File).keys(), 0)) == "units"
}

// setDefaults fills the values of keys that have a default.
func setDefaults(keys []key, unit kinds) {
	var faults faultList
	r := reader{faults: &faults, unit: unit}
	for _, k := range keys {
		if !k.kinds.allow(unit) {
			continue
		}
		if of, isObject := k.value.(fieldsValue); isObject {
			setDefaults(of.keys, unit)
		}
		if text := k.defaultFor(unit); text != "" {
			k.value.read(&r, defaultNode(text))
		}
	}
	if err := faults.err(); err != nil {
		panic("a default is not valid: " + err.Error()) // the tests read all defaults
	}
}

var defaultNodes sync.Map // from the texts of defaults to their nodes

// defaultNode returns the node of a default.
func defaultNode(text string) *node {
	if n, found := defaultNodes.Load(text); found {
		return n.(*node)
	}
	src, faults := &source{text: text}, &faultList{}
	n := buildTree(src, src.parse(faults), faults)
	n.at = place{}
	defaultNodes.Store(text, n)
	return n
}

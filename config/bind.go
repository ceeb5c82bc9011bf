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
	if n.kind == textNode && len(n.text) <= maxShown {
		return n.text
	}
	return "a, b"
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
		r.fault(n, "is a map: must be %s; a text that begins with a brace needs quotes", wanted)
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
	for _, e := range entries {
		k := find(keys, e.name)
		switch {
		case k == nil && !ignored(e.name):
			r.unknownKey(e, keys)
		case k == nil || e.value.kind == faultyNode:
		case !k.kinds.allow(r.unit):
			r.faultAt(e.at, "%q is not for %s units", e.name, kindName(r.unit))
		default:
			r.within(e.name, func() { k.value.read(r, e.value) })
		}
	}
}

// mapFor returns what to write in place of a text or list: the key that takes the word, or else the keys.
func (r *reader) mapFor(n *node, keys []key) string {
	for _, k := range keys {
		if in := k.value.form(); n.kind == textNode && k.kinds.allow(r.unit) && slices.Contains(in.allowed, n.text) {
			return ", such as {" + k.name + ": " + n.text + "}"
		}
	}
	return ": " + strings.Join(names(keys, r.unit), ", ")
}

// otherNames are names that other process managers have for keys.
var otherNames = map[string]string{
	"autorestart": "restart", "autostart": "enabled", "cmd": "command", "cron": "schedule", "cwd": "working_dir",
	"directory": "working_dir", "env": "environment", "exec": "command", "healthcheck": "health",
	"instances": "replicas", "numprocs": "replicas", "workdir": "working_dir",
}

func (r *reader) unknownKey(e entry, keys []key) {
	if r.faults.full() {
		return
	}
	known := names(keys, r.unit)
	suggestion := nearest.DidYouMean(e.name, known)
	if name := otherNames[e.name]; slices.Contains(known, name) {
		suggestion = nearest.DidYouMean(name, known)
	}
	if suggestion == "" {
		suggestion = ": must be one of " + strings.Join(known, ", ")
	}
	r.faultAt(e.at, "unknown key %.100q%s", e.name, suggestion)
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

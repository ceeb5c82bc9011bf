package config

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/core-tools/hsu-master/internal/nearest"
)

// nodeKind is the form of a node.
type nodeKind uint8

const (
	nullNode nodeKind = iota
	textNode
	listNode
	mapNode
	faultyNode // it has a fault already
)

// node is a value of a file. Aliases share the node of their anchor, so a node must not change once it is made.
type node struct {
	kind    nodeKind
	text    string // of a textNode, as in the file but without quotes; never a number or a bool
	items   []*node
	entries []entry
	at      place
	size    int  // number of nodes below and including this one, with shared ones counted each time
	partial bool // a map that a merge key names has a fault
}

// entry is a key of a map and its value.
type entry struct {
	name      string
	at        place
	value     *node
	inherited bool // from "defaults:"
}

// get returns the value of a key, or nil.
func (n *node) get(name string) *node {
	if n == nil {
		return nil
	}
	for i := range n.entries {
		if n.entries[i].name == name {
			return n.entries[i].value
		}
	}
	return nil
}

// deepest returns the value at the end of a path of keys, or the last one on the path that exists.
func (n *node) deepest(path ...string) *node {
	for _, name := range path {
		next := n.get(name)
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

// maxNodes bounds the nodes of a file after its aliases are expanded, and those of all units after "defaults:" is
// merged into each.
const maxNodes = 200_000

// builder makes the nodes of one file.
type builder struct {
	src     *source
	faults  *faultList
	anchors map[string]*node // nil while the node of the anchor is being made
	depth   int
	unused  []node // nodes are allocated many at a time
	many    int    // the size of the last allocation: few for the text of a default, which is kept
}

// add returns a new node.
func (b *builder) add(n node) *node {
	if len(b.unused) == 0 {
		b.many = min(max(1, 2*b.many), 128)
		b.unused = make([]node, b.many)
	}
	added := &b.unused[0]
	b.unused = b.unused[1:]
	n.size = 1
	*added = n
	return added
}

// buildTree returns the nodes of a document.
func buildTree(src *source, document ast.Node, faults *faultList) *node {
	b := builder{src: src, faults: faults, anchors: map[string]*node{}}
	if document == nil {
		return &node{at: place{src: src}}
	}
	return b.build(document)
}

func (b *builder) build(from ast.Node) *node {
	b.depth++
	defer func() { b.depth-- }()
	at := b.src.start(from)
	if b.depth > maxDepth {
		b.faults.add(at, tooDeep)
		return b.add(node{kind: faultyNode, at: at})
	}
	switch from := from.(type) {
	case *ast.NullNode:
		if from.GetToken().Type == token.ImplicitNullType { // nothing is there
			at.width = 1
		}
		return b.add(node{at: at})
	case *ast.MappingNode:
		return b.buildMap(at, from.Values)
	case *ast.MappingValueNode:
		return b.buildMap(at, []*ast.MappingValueNode{from})
	case *ast.SequenceNode:
		return b.buildList(at, from.Values)
	case *ast.AnchorNode:
		return b.buildAnchor(from)
	case *ast.AliasNode:
		return b.resolve(from, at)
	case *ast.LiteralNode:
		return b.add(node{kind: textNode, text: from.Value.GetToken().Value, at: at})
	case *ast.TagNode:
		b.faults.add(at, "tags are not supported: quote a text that begins with an exclamation mark")
		return b.add(node{kind: faultyNode, at: at})
	case ast.ScalarNode:
		return b.add(node{kind: textNode, text: from.GetToken().Value, at: at})
	}
	b.faults.add(at, "this is not supported here")
	return b.add(node{kind: faultyNode, at: at})
}

func (b *builder) buildList(at place, values []ast.Node) *node {
	n := b.add(node{kind: listNode, items: make([]*node, 0, len(values)), at: at})
	for _, v := range values {
		item := b.build(v)
		n.items = append(n.items, item)
		b.grow(n, item)
	}
	return n
}

func (b *builder) buildMap(at place, values []*ast.MappingValueNode) *node {
	n := b.add(node{kind: mapNode, entries: make([]entry, 0, len(values)), at: at})
	var names nameSet
	var merged []*node
	for _, v := range values {
		if _, isMerge := v.Key.(*ast.MergeKeyNode); isMerge {
			named, ok := b.mergedMaps(v.Value)
			merged = append(merged, named...)
			n.partial = n.partial || !ok
			continue
		}
		key, ok := b.keyOf(v)
		if !ok {
			continue
		}
		if names.has(n, key.name) {
			b.faults.add(key.at, "the key %q is given twice: first in line %d", key.name, entryOf(n, key.name).at.line)
			continue
		}
		key.value = b.build(v.Value)
		b.addEntry(n, key)
	}
	for _, from := range merged {
		for _, e := range from.entries {
			if !names.has(n, e.name) { // the first map that has a key wins
				b.addEntry(n, e)
			}
		}
	}
	return n
}

func (b *builder) addEntry(n *node, e entry) {
	n.entries = append(n.entries, e)
	b.grow(n, e.value)
}

// nameSet finds the keys of a map that is being built.
type nameSet struct {
	names map[string]bool // of the first entries; not used for a small map, because a search is faster
	known int             // number of these entries
}

// smallMap is the number of entries up to which a map is searched.
const smallMap = 16

func (s *nameSet) has(n *node, name string) bool {
	if len(n.entries) <= smallMap {
		return n.get(name) != nil
	}
	if s.names == nil {
		s.names = map[string]bool{}
	}
	for s.known < len(n.entries) {
		s.names[n.entries[s.known].name] = true
		s.known++
	}
	return s.names[name]
}

// keyOf returns the entry of a key, still without its value.
func (b *builder) keyOf(v *ast.MappingValueNode) (entry, bool) {
	tk := v.Key.GetToken()
	e := entry{at: b.src.at(tk)}
	switch key := v.Key.(type) {
	case *ast.MappingKeyNode, *ast.AliasNode, *ast.AnchorNode, *ast.TagNode:
		b.faults.add(e.at, "a key must be a plain text")
		return e, false
	default:
		e.name = key.GetToken().Value
		return e, true
	}
}

// mergedMaps returns the maps that a merge key "<<" names: one, or a list of them. It returns false if one is faulty.
func (b *builder) mergedMaps(value ast.Node) ([]*node, bool) {
	n := b.build(value)
	named := []*node{n}
	if n.kind == listNode {
		named = n.items
	}
	for _, m := range named {
		switch {
		case m.kind == mapNode:
			continue
		case m.kind == textNode && b.anchors[m.text] != nil:
			b.faults.add(m.at, "<< must name a map, or a list of maps: write *%.100s", m.text)
		case m.kind != faultyNode:
			b.faults.add(m.at, "<< must name a map, or a list of maps")
		}
		return nil, false
	}
	return named, true
}

// grow counts a node that has been put into n. If n is too large, it loses its content.
func (b *builder) grow(n, added *node) {
	n.size += added.size
	if n.size > maxNodes {
		b.faults.add(n.at, "the aliases expand to more than %d values", maxNodes)
		n.items, n.entries, n.size = nil, nil, 1
	}
}

func (b *builder) buildAnchor(from *ast.AnchorNode) *node {
	name := from.Name.GetToken().Value
	b.anchors[name] = nil
	n := b.build(from.Value)
	b.anchors[name] = n
	return n
}

func (b *builder) resolve(from *ast.AliasNode, at place) *node {
	name := from.Value.GetToken().Value
	at.width = int32(utf8.RuneCountInString(name) + len("*"))
	n, known := b.anchors[name]
	switch {
	case !known:
		hint := "quote a text that begins with *"
		if near := nearest.Name(name, slices.Sorted(maps.Keys(b.anchors))); near != "" {
			hint = "write *" + near + ", or " + hint
		}
		b.faults.add(at, "an alias needs an anchor of its name before it: %s", hint)
	case n == nil:
		b.faults.add(at, "an alias cannot be part of its own anchor")
	default:
		return n
	}
	return b.add(node{kind: faultyNode, at: at})
}

// blank reports whether a node has no value.
func (n *node) blank() bool { return n == nil || n.kind == nullNode || n.kind == faultyNode }

// ignoredPrefix begins the names of keys that are ignored.
const ignoredPrefix = "x-"

func ignored(name string) bool { return strings.HasPrefix(name, ignoredPrefix) }

package config

// Tree is a value of a YAML file whose keys are not those of this package: [ReadTree] reads it for an import.
type Tree struct {
	Line    int
	Kind    TreeKind
	Text    string // of a TreeText, as in the file but without quotes
	Items   []*Tree
	Entries []TreeEntry
}

// TreeEntry is a key of a map and its value.
type TreeEntry struct {
	Name  string
	Line  int
	Value *Tree
}

// TreeKind is the form of a value.
type TreeKind uint8

// The values of TreeKind.
const (
	TreeNull TreeKind = iota
	TreeText          // a number or a bool too
	TreeList
	TreeMap
)

// Get returns the value of a key, or nil.
func (t *Tree) Get(name string) *Tree {
	if t == nil {
		return nil
	}
	for _, e := range t.Entries {
		if e.Name == name {
			return e.Value
		}
	}
	return nil
}

// ReadTree reads a YAML file within the bounds of a configuration file. The error is a [*FaultError], in which the file
// has the name.
func ReadTree(name string, content []byte) (*Tree, error) {
	faults := faultList{files: []string{name}}
	src := &source{name: name, text: string(content)}
	document := src.parse(&faults)
	var root *node
	if !faults.any() {
		root = buildTree(src, document, &faults)
	}
	if err := faults.err(); err != nil {
		return nil, err
	}
	return treeOf(root, map[*node]*Tree{}), nil
}

// treeOf returns the tree of a node. Nodes are shared by aliases, and so are their trees.
func treeOf(n *node, known map[*node]*Tree) *Tree {
	if t, found := known[n]; found {
		return t
	}
	t := &Tree{Line: int(n.at.line), Text: n.text}
	known[n] = t
	switch n.kind {
	case textNode:
		t.Kind = TreeText
	case listNode:
		t.Kind = TreeList
	case mapNode:
		t.Kind = TreeMap
	case nullNode, faultyNode: // the second one is an error
	}
	for _, item := range n.items {
		t.Items = append(t.Items, treeOf(item, known))
	}
	for _, e := range n.entries {
		t.Entries = append(t.Entries, TreeEntry{Name: e.name, Line: int(e.at.line), Value: treeOf(e.value, known)})
	}
	return t
}

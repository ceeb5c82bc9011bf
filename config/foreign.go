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
	if !faults.any() && textSize(root, map[*node]int{}) > maxText {
		faults.add(root.at, "the aliases expand to more than %d bytes", maxText)
	}
	if err := faults.err(); err != nil {
		return nil, err
	}
	return treeOf(root, map[*node]*Tree{}), nil
}

// maxText bounds the texts of a tree, with those of aliases counted each time.
const maxText = 4 * maxSize

// textSize returns the number of bytes of all texts of a node, or one above maxText.
func textSize(n *node, known map[*node]int) int {
	if size, found := known[n]; found {
		return size
	}
	size := len(n.text)
	for _, item := range n.items {
		size = min(size+textSize(item, known), maxText+1)
	}
	for _, e := range n.entries {
		size = min(size+len(e.name)+textSize(e.value, known), maxText+1)
	}
	known[n] = size
	return size
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

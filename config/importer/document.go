package importer

import (
	"fmt"
	"slices"
	"strings"
)

// document is a configuration file of ours that is being made.
type document struct {
	head     []string // comments at the top
	root     *block
	defaults *block // "defaults:" of root
	units    *block // "units:" of root
	names    map[string]bool
	room     room
}

// room bounds a document: entries that are added when it is used up are dropped, and the document is refused. A small
// file can repeat a large text without end, by aliases, variables or numbers of processes.
type room struct{ bytes int }

// maxEntries bounds the entries of a block.
const maxEntries = 4_000

// take reports whether there is room for an entry.
func (r *room) take(b *block, e *entry) bool {
	r.bytes -= len(e.name) + len(e.text)
	for _, word := range e.list {
		r.bytes -= len(word)
	}
	if len(b.entries) >= maxEntries {
		r.bytes = -1
	}
	return r.bytes >= 0
}

func newDocument() *document {
	d := &document{names: map[string]bool{}, room: room{2 * maxSize}}
	d.root, d.defaults, d.units = d.block(), d.block(), d.block()
	d.root.entries = []*entry{
		{form: blockEntry, name: "defaults", sub: d.defaults, optional: true},
		{form: blockEntry, name: "units", sub: d.units},
	}
	return d
}

func (d *document) block() *block { return &block{room: &d.room} }

// full reports whether something was dropped, because the document is too large.
func (d *document) full() bool { return d.room.bytes < 0 }

// setting sets a key of the file itself.
func (d *document) setting(path, value string) {
	rest := d.root.entries
	own := &block{room: &d.room, entries: rest[: len(rest)-2 : len(rest)-2]}
	own.set(path, value)
	d.root.entries = append(own.entries, rest[len(rest)-2:]...)
}

// remark adds a comment about the file itself, below the settings.
func (d *document) remark(format string, args ...any) {
	rest := d.root.entries
	own := &block{room: &d.room, entries: rest[: len(rest)-2 : len(rest)-2]}
	own.note(format, args...)
	d.root.entries = append(own.entries, rest[len(rest)-2:]...)
}

// block is a map of our file. Its entries are printed in the order in which they are set.
type block struct {
	entries []*entry
	room    *room
}

// entry is a key with its value, or a comment.
type entry struct {
	form  entryForm
	name  string
	text  string   // the value, or the comment
	list  []string // the value
	sub   *block   // the value
	fault string   // if it is set, the entry is printed as a comment with this reason
	// optional means that the entry is not printed if its block has no entries.
	optional bool
}

type entryForm uint8

const (
	noteEntry entryForm = iota
	textEntry
	listEntry
	blockEntry
)

// uses reports whether the value of the entry has a reference.
func (e *entry) uses(ref string) bool {
	return e != nil && (strings.Contains(e.text, ref) ||
		slices.ContainsFunc(e.list, func(word string) bool { return strings.Contains(word, ref) }))
}

// at returns the block at the end of a path of keys, which is made if there is none.
func (b *block) at(path ...string) *block {
	for _, name := range path {
		e := b.find(name)
		if e == nil || e.form != blockEntry {
			e = &entry{form: blockEntry, name: name, sub: &block{room: b.room}}
			b.put(e)
		}
		b = e.sub
	}
	return b
}

func (b *block) find(name string) *entry {
	for _, e := range b.entries {
		if e.form != noteEntry && e.name == name {
			return e
		}
	}
	return nil
}

// put adds an entry, or replaces the one with its name.
func (b *block) put(added *entry) {
	if b.room.bytes < 0 {
		return
	}
	for i, e := range b.entries {
		if e.form != noteEntry && e.name == added.name {
			b.entries[i] = added
			return
		}
	}
	if b.room.take(b, added) {
		b.entries = append(b.entries, added)
	}
}

// set sets the key at the end of a path such as restart.policy. The value is in the syntax of our file.
func (b *block) set(path, value string) {
	b, name := b.above(path)
	b.put(&entry{form: textEntry, name: name, text: value})
}

func (b *block) setList(path string, values []string) {
	b, name := b.above(path)
	b.put(&entry{form: listEntry, name: name, list: values})
}

// has reports whether the key at the end of a path is set.
func (b *block) has(path string) bool {
	for name := range strings.SplitSeq(path, ".") {
		if b == nil {
			return false
		}
		e := b.find(name)
		if e == nil {
			return false
		}
		b = e.sub
	}
	return true
}

func (b *block) above(path string) (above *block, name string) {
	names := strings.Split(path, ".")
	last := len(names) - 1
	return b.at(names[:last]...), names[last]
}

// named sets a key whose name is free, such as that of a variable.
func (b *block) named(name, value string) {
	b.put(&entry{form: textEntry, name: name, text: value})
}

// note adds a comment.
func (b *block) note(format string, args ...any) {
	if e := (&entry{text: fmt.Sprintf(format, args...)}); b.room.take(b, e) {
		b.entries = append(b.entries, e)
	}
}

// unit is a unit of the document.
type unit struct {
	*block
	entry *entry
}

// unit adds a unit, whose name is made from the one in the foreign file. The comment of a renamed unit names both.
func (d *document) unit(foreign string) unit {
	name := d.freeName(unitName(foreign))
	e := &entry{form: blockEntry, name: name, sub: d.block()}
	if name != foreign {
		d.units.note("%q is %q here: names of units have lower-case letters, digits, - and _", foreign, name)
	}
	if d.room.take(d.units, e) {
		d.units.entries = append(d.units.entries, e)
	}
	return unit{e.sub, e}
}

// leaveOut makes a comment of the unit.
func (u unit) leaveOut(format string, args ...any) { u.entry.fault = fmt.Sprintf(format, args...) }

// maxName is the number of letters that the name of a unit can have.
const maxName = 63

// unitName returns the name of a unit that is most like a foreign name.
func unitName(foreign string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(foreign) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' {
			b.WriteRune(r)
		} else {
			b.WriteByte('-')
		}
	}
	name := b.String()
	name = strings.Trim(name[:min(len(name), maxName)], "-_")
	if at := strings.LastIndexByte(name, '-'); at >= 0 && strings.Trim(name[at+1:], "0123456789") == "" {
		name = strings.TrimRight(name[:at], "-_") + "_" + name[at+1:] // name-1 is the id of a worker
	}
	switch rest, reserved := strings.CutPrefix(name, "x-"); {
	case name == "":
		return "unit"
	case reserved:
		return "x_" + rest // the loader ignores keys that begin with x-
	}
	return name
}

// freeName returns the name, or one like it that no unit has yet, and takes it.
func (d *document) freeName(name string) string {
	free := name
	for n := 2; d.names[free]; n++ {
		suffix := fmt.Sprintf("_%d", n)
		free = strings.TrimRight(name[:min(len(name), maxName-len(suffix))], "-_") + suffix
	}
	d.names[free] = true
	return free
}

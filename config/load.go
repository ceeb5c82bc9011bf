package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/core-tools/hsu-master/internal/safefile"
)

// Load reads a configuration file and the files that it includes. The error is a [*FaultError] if the file can be
// read and is wrong.
func Load(path string, host Host) (*File, error) {
	file, err := LoadWithText(path, host)
	if err != nil {
		return nil, err
	}
	for _, src := range file.sources {
		src.release()
	}
	return file, nil
}

// LoadWithText is [Load], but the file keeps its text for [File.Locate].
func LoadWithText(path string, host Host) (*File, error) {
	l := loader{host: host, meant: map[string]bool{}}
	main, err := l.read(path, false)
	if err != nil {
		return nil, err
	}
	file := &File{Path: path, main: main}
	setDefaults(file.keys(), 0)
	if !l.broken {
		r := l.reader()
		r.object(main, file.keys())
		l.include(file)
	}
	if !l.broken { // included files neither
		l.readUnits(file)
		l.check(file)
	}
	if err := l.faults.err(); err != nil {
		return nil, err
	}
	for _, tree := range append([]*node{main}, l.included...) {
		file.sources = append(file.sources, tree.at.src)
	}
	return file, nil
}

// loader reads the files of one configuration.
type loader struct {
	host     Host
	faults   faultList
	broken   bool // a file is not YAML: then only that is reported
	included []*node
	nodes    int             // of all units, with "defaults:"
	meant    map[string]bool // the possible names that are almost those of units with impossible ones
}

func (l *loader) reader() *reader { return &reader{host: l.host, faults: &l.faults} }

// read returns the nodes of a file.
func (l *loader) read(path string, included bool) (*node, error) {
	content, err := l.host.ReadFile(path)
	if errors.Is(err, safefile.ErrTooLarge) {
		return nil, fmt.Errorf("%w: move units into included files", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if err := l.host.CheckTrusted(path); err != nil {
		return nil, fmt.Errorf("the configuration names programs to run: %w", err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("find the folder of %s: %w", path, err)
	}
	src := &source{name: path, dir: dir, text: string(content), foreign: included && !unitsKey.Match(content)}
	l.faults.files = append(l.faults.files, path)
	var syntax faultList
	document := src.parse(&syntax)
	if syntax.any() {
		if !l.broken {
			l.faults.list = nil
		}
		l.broken = true
		l.faults.list = append(l.faults.list, syntax.list...)
		return &node{at: place{src: src}, size: 1}, nil
	}
	return buildTree(src, document, &l.faults), nil
}

// maxIncluded bounds the number of included files.
const maxIncluded = 1_000

// include reads the files that the patterns of "include:" match, except for the main file.
func (l *loader) include(file *File) {
	n := file.main.get("include")
	if n.blank() || n.kind != listNode {
		return
	}
	r := l.reader()
	r.path = []string{"include"}
	src := file.main.at.src
	read := map[string]bool{src.absolute(filepath.Base(src.name)): true}
	for i, pattern := range file.Include {
		for _, path := range l.matches(r, n.items[i], pattern) {
			if read[path] {
				continue
			}
			read[path] = true
			if len(l.included) == maxIncluded {
				r.fault(n.items[i], "matches too many files: at most %d are read", maxIncluded)
				return
			}
			tree, err := l.read(path, true)
			if err != nil {
				r.fault(n.items[i], "%s", err)
				continue
			}
			l.included = append(l.included, tree)
		}
	}
	l.checkIncluded()
}

// matches returns the files that a pattern matches. A name without wildcards must exist.
func (l *loader) matches(r *reader, item *node, pattern string) []string {
	if pattern == "" {
		return nil // it has a fault
	}
	found, err := l.host.Glob(filepath.Clean(item.at.src.absolute(pattern)))
	switch {
	case err != nil:
		r.fault(item, "%s: %s", r.quote(item), err)
	case len(found) == 0 && !strings.ContainsAny(pattern, "*?["):
		r.fault(item, "there is no file %s", r.quote(item))
	}
	return found
}

// checkIncluded reports the keys of included files that only the main file can have.
func (l *loader) checkIncluded() {
	if l.broken {
		return
	}
	for _, tree := range l.included {
		r := l.reader()
		entries, _ := r.entries(tree)
		for _, e := range entries {
			if e.name != "units" && !ignored(e.name) {
				r.faultAt(e.at, "%.100q is not for included files: they have the key units only", e.name)
			}
		}
		if units := tree.get("units"); units != nil {
			r.path = []string{"units"}
			unitsValue{}.read(r, units)
		}
	}
}

// MaxWorkers is how many workers the units of a file can have together. It keeps a typing error from forking
// without end.
const MaxWorkers = 10_000

// readUnits reads the units of all files.
func (l *loader) readUnits(file *File) {
	defaults := file.main.get("defaults")
	var unit Unit
	form := fieldsValue{&unit, unit.keys()}
	fresh := map[kinds]Unit{}
	for _, kind := range []kinds{0, integrated, managed, unmanaged} {
		unit = Unit{}
		setDefaults(form.keys, kind)
		fresh[kind] = unit
	}
	first := map[string]place{}
	workers := 0
	for _, tree := range append([]*node{file.main}, l.included...) {
		units := tree.get("units")
		if units == nil || units.kind != mapNode {
			continue
		}
		misplaced := l.checkIndented(units, form.keys)
		for _, e := range units.entries {
			if ignored(e.name) || l.faults.full() || misplaced[e.name] {
				continue
			}
			single := l.checkName(e, units, first)
			kind := l.reader().kindOf(e.value, defaults)
			unit = fresh[kind]
			unit.Name = e.name
			n := l.readUnit(form, &unit, e, defaults, kind)
			if single { // otherwise the name of other faults would be that of the first
				file.Units, file.units = append(file.Units, unit), append(file.units, n)
			}
			if workers += unit.Replicas; workers > MaxWorkers {
				l.faults.add(e.at, "the units have more than %d workers together", MaxWorkers)
				return
			}
			if l.nodes += n.size; l.nodes > maxNodes {
				l.faults.add(e.at, "the units have more than %d values together, with those of defaults", maxNodes)
				return
			}
		}
	}
}

// checkIndented reports keys of a unit that stand where the names of units do. It returns the names of all entries that
// are not to be read as units.
func (l *loader) checkIndented(units *node, keys []key) map[string]bool {
	unitKey := func(e entry) bool { return find(keys, e.name) != nil }
	if !slices.ContainsFunc(units.entries, func(e entry) bool {
		return unitKey(e) && (e.value.kind == textNode || e.value.kind == listNode)
	}) {
		return nil
	}
	misplaced := map[string]bool{}
	for i, e := range units.entries {
		if unitKey(e) {
			misplaced[e.name] = true
			l.faults.add(e.at, "units: %q is a key of a unit: indent it below the name of the unit", e.name)
		} else if i+1 < len(units.entries) && unitKey(units.entries[i+1]) && e.value.kind == nullNode {
			misplaced[e.name] = true
		}
	}
	return misplaced
}

// checkName reports a name that is impossible or taken to the faults. It returns whether no unit before has the name.
func (l *loader) checkName(e entry, units *node, first map[string]place) bool {
	other, twice := first[e.name]
	if twice {
		l.faults.add(e.at, "units: %.100q is defined twice: first in %s:%d", e.name, other.src.name, other.line)
		return false
	}
	first[e.name] = e.at
	if reason := nameFault(e.name); reason != "" {
		name, suggestion := possibleName(e.name), ""
		if name != "" {
			l.meant[name] = true
		}
		if name != "" && units.get(name) == nil && first[name] == (place{}) {
			suggestion = fmt.Sprintf(" (did you mean %q?)", name)
		}
		l.faults.add(e.at, "units: %.100q %s%s", e.name, reason, suggestion)
	}
	return true
}

// readUnit reads a unit, and returns its node with "defaults:".
func (l *loader) readUnit(form fieldsValue, u *Unit, e entry, defaults *node, kind kinds) *node {
	r := l.reader()
	r.path, r.unit = []string{"units", e.name}, kind
	if e.value.kind == faultyNode {
		return e.value
	}
	n := derive(merge(e.value, defaults, form, kind), kind)
	r.object(n, form.keys)
	u.Program.WorkingDir = e.at.src.absolute(u.Program.WorkingDir) // the default is relative
	if n.get("readiness").blank() {
		u.Readiness = u.Health
	}
	if n.get("liveness").blank() {
		u.Liveness = u.Health
	}
	checkUnit(r, u, n, e)
	readEnvironment(r, u, n)
	return n
}

// nameFault returns the fault of a unit's name, or "".
func nameFault(name string) string {
	const rule = "is no name of a unit: lower-case letters, digits, - and _, at most 63, a letter or digit at both ends"
	if name == "" || len(name) > 63 {
		return rule
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case (c == '-' || c == '_') && i > 0 && i < len(name)-1:
		default:
			return rule
		}
	}
	if before, after, found := cutLast(name, "-"); found && before != "" && strings.Trim(after, "0123456789") == "" {
		return "must not end in a dash and a number, which is the form of the ids of workers"
	}
	return ""
}

// umlauts replaces letters as German does where they are missing.
var umlauts = strings.NewReplacer("ä", "ae", "ö", "oe", "ü", "ue", "ß", "ss")

// possibleName returns the name of a unit that is written almost like an impossible one, or "".
func possibleName(name string) string {
	lower := umlauts.Replace(strings.ToLower(name))
	if strings.ContainsFunc(lower, func(c rune) bool { return c >= utf8.RuneSelf }) {
		return ""
	}
	words := strings.FieldsFunc(lower, func(c rune) bool {
		return c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9')
	})
	possible := strings.Trim(strings.Join(words, "-"), "_-")
	if before, after, found := cutLast(possible, "-"); found && strings.Trim(after, "0123456789") == "" {
		possible = before + after
	}
	if nameFault(possible) != "" || ignored(possible) {
		return ""
	}
	return possible
}

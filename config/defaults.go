package config

import (
	"slices"
	"strings"

	"github.com/core-tools/hsu-master/internal/placeholder"
)

// kindOf returns the kind of a unit: of its own, else of "defaults:", else integrated. It is 0 for an invalid one, so
// that no further faults follow from it.
func (r *reader) kindOf(unit, defaults *node) kinds {
	n := unit.get("kind")
	if n.blank() {
		n = defaults.get("kind")
	}
	if n.blank() {
		return integrated
	}
	name, _ := r.expand(n, plain) // a fault is reported when the key is read
	return setOf(Kind(name))
}

// merge returns the node of a unit, or of a map in it, with the values of "defaults:" that it does not have itself.
// Maps are merged, and other values replace each other.
func merge(own, defaults *node, of fieldsValue, kind kinds) *node {
	if own.kind != mapNode && !own.blank() || defaults.blank() || defaults.kind != mapNode {
		return own
	}
	merged := &node{
		kind: mapNode, at: own.at, size: 1, entries: make([]entry, 0, len(own.entries)+len(defaults.entries)),
	}
	add := func(e entry) {
		merged.entries = append(merged.entries, e)
		merged.size += e.value.size
	}
	for _, e := range own.entries {
		if inherited := defaults.get(e.name); inherited != nil {
			if k := find(of.keys, e.name); k != nil {
				e.value = mergeValue(e.value, inherited, k.value, kind)
			}
		}
		add(e)
	}
	for _, e := range defaults.entries {
		k := find(of.keys, e.name)
		if k == nil || own.get(e.name) != nil || !k.kinds.allow(kind) || skipped(e.name, own, defaults, of, kind) {
			continue
		}
		e.inherited = true
		e.value = mergeValue(&node{at: e.value.at, size: 1}, e.value, k.value, kind)
		add(e)
	}
	return merged
}

func mergeValue(own, inherited *node, as value, kind kinds) *node {
	switch as := as.(type) {
	case fieldsValue:
		return merge(own, inherited, as, kind)
	case textMapValue, dependenciesValue:
		return mergeNames(own, inherited)
	}
	if own.blank() {
		return inherited
	}
	return own
}

// skipped reports whether a key of "defaults:" is of another type of health check than that of the unit.
func skipped(name string, own, defaults *node, of fieldsValue, kind kinds) bool {
	types, typed := healthFields[name]
	if _, isHealth := of.at.(*Health); !isHealth || !typed {
		return false
	}
	used := find(of.keys, "type").defaultFor(kind)
	for _, n := range []*node{defaults.get("type"), own.get("type")} {
		if !n.blank() {
			used = n.text
		}
	}
	return !slices.Contains(types, HealthType(used))
}

// mergeNames merges maps whose keys are free.
func mergeNames(own, inherited *node) *node {
	if own.kind != mapNode && !own.blank() || inherited.kind != mapNode {
		return own
	}
	merged := &node{kind: mapNode, at: own.at, size: 1 + own.size, entries: slices.Clone(own.entries)}
	for _, e := range inherited.entries {
		if own.get(e.name) == nil {
			e.inherited = true
			merged.entries = append(merged.entries, e)
			merged.size += e.value.size
		}
	}
	return merged
}

// derive adds the values that follow from others: a managed unit that uses its port has one, and a unit with a
// schedule is not restarted, so it does not get the memory_restart of "defaults:".
func derive(unit *node, kind kinds) *node {
	if kind != managed || unit.kind != mapNode {
		return unit
	}
	if unit.get("port").blank() && usesPort(unit) {
		unit = with(unit, "port", defaultNode("auto"))
	}
	if unit.get("schedule").blank() {
		return unit
	}
	unit = withoutInherited(unit, "memory_restart")
	if unit.get("restart").get("policy").blank() {
		restart := unit.get("restart")
		if restart.blank() {
			restart = &node{kind: mapNode, at: unit.get("schedule").at, size: 1}
		}
		if restart.kind == mapNode {
			unit = with(unit, "restart", with(restart, "policy", defaultNode("never")))
		}
	}
	return unit
}

// withoutInherited returns a copy of a map without the value of "defaults:" for the key.
func withoutInherited(n *node, name string) *node {
	without := *n
	without.entries = slices.DeleteFunc(slices.Clone(n.entries), func(e entry) bool {
		return e.name == name && e.inherited
	})
	return &without
}

// with returns a copy of a map that has the value for the key.
func with(n *node, name string, value *node) *node {
	entries := slices.DeleteFunc(slices.Clone(n.entries), func(e entry) bool { return e.name == name })
	entries = append(entries, entry{name: name, at: value.at, value: value})
	return &node{kind: mapNode, at: n.at, entries: entries, size: n.size + value.size}
}

// usesPort reports whether the commands or the environment of a unit mention its port.
func usesPort(unit *node) bool { return anyOfProgram(unit, mentionsPort) }

// anyOfProgram reports whether is returns true for a value of the commands or of the environment of a unit.
func anyOfProgram(unit *node, is func(*node) bool) bool {
	for _, at := range [][2]string{{"start", "before"}, {"stop", "command"}, {"stop", "after"}} {
		if slices.ContainsFunc(itemsOf(unit.get(at[0]).get(at[1])), is) {
			return true
		}
	}
	return slices.ContainsFunc([]string{"command", "environment"}, func(name string) bool {
		n := unit.get(name)
		if n == nil {
			return false
		}
		return slices.ContainsFunc(n.items, is) ||
			slices.ContainsFunc(n.entries, func(e entry) bool { return is(e.value) })
	})
}

func mentionsPort(n *node) bool {
	return placeholder.In(n.text, placeholder.Port) || strings.Contains(n.text, "HSU_WORKER_PORT")
}

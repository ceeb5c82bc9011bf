package config

import "strings"

// key describes one key of a map in the file, and where its value is kept.
type key struct {
	name  string
	value value
	// def is the default, written as in a file. It is "" if there is none.
	def string
	// others is the default for units that are not integrated, if it differs.
	others string
	doc    string
	kinds  kinds // of units that the key is for; 0 means all
	change change
	// optional means that the keys of the value have defaults only if the value is given.
	optional bool
}

// value is a variable that a key fills.
type value interface {
	// read fills the variable from a node, or reports why it cannot.
	read(r *reader, n *node)
	form() form
}

// object is a variable with keys of its own. The keys point into the variable: [reader.object] fills it through them.
// They are built once for all units, which are read into the same variable in turn.
type object interface{ keys() []key }

// kinds is a set of kinds of units.
type kinds uint8

const (
	integrated kinds = 1 << iota
	managed
	unmanaged

	started = integrated | managed // by the master
)

func (k kinds) allow(unit kinds) bool { return k == 0 || unit == 0 || k&unit != 0 }

// String returns the names of the kinds.
func (k kinds) String() string {
	var list []string
	for _, one := range []kinds{integrated, managed, unmanaged} {
		if k&one != 0 {
			list = append(list, string(kindName(one)))
		}
	}
	return strings.Join(list, " or ")
}

// change is the step by which a changed value takes effect.
type change uint8

const (
	live           change = iota // a reload
	restartsWorker               // a reload, which restarts the workers of the unit
	restartsMaster               // a restart of the master
)

func (c change) String() string {
	return [...]string{"nothing", "the worker", "the master"}[c]
}

// find returns the key with a name, or nil.
func find(keys []key, name string) *key {
	for i := range keys {
		if keys[i].name == name {
			return &keys[i]
		}
	}
	return nil
}

// names returns the names of the keys that units of a kind may have.
func names(keys []key, unit kinds) []string {
	var list []string
	for _, k := range keys {
		if k.kinds.allow(unit) {
			list = append(list, k.name)
		}
	}
	return list
}

// defaultFor returns the default for units of a kind, as a file would have it.
func (k key) defaultFor(unit kinds) string {
	if k.others != "" && unit&integrated == 0 {
		return k.others
	}
	return k.def
}

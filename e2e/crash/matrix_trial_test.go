//go:build e2e && crash && linux

package crash

import (
	"strings"
)

// trial is one run: the master is killed at each of the moments in turn, at the first one during the operation, at
// each other one during the recovery from the previous one.
type trial struct {
	op    *operation
	kills []moment
	once  bool // the first of them occurs only once
}

func (tr trial) String() string {
	var at []string
	for _, m := range tr.kills {
		at = append(at, m.String())
	}
	return tr.op.name + ": killed at " + strings.Join(at, ", then at ")
}

// outcome is the result of a trial.
type outcome struct {
	trial
	reached  int // how many of the kills took place
	err      error
	passed   map[string]int // in the operation
	recovery map[string]int // by the sound master at the end
}

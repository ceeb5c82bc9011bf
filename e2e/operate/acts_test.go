//go:build e2e && linux

package operate

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/eventtype"
)

// act is a change that an operator makes with one or more commands, after which it can be made again.
type act struct {
	name     string
	replicas int
	order    string // of updates
	steps    []step
}

// step is one command of an operator.
type step struct {
	command  []string
	code     int         // the exit code of the command
	prepare  func(*site) // what the operator does before
	detaches bool        // the master ends
	record   string      // type of the event that is recorded with the intent; "" if there is no intent to record
	made     check       // of a change that is recorded
	unmade   check       // of one that is not
}

// check compares the workers after a step with those before.
type check func(s *site, before, after harness.Dump) error

// acts are the changes that must lose no call.
var acts = []act{
	{"rolling restart", 8, "stop-first", []step{restart}},
	{"reload with a new program", 8, "stop-first", []step{newProgram}},
	{"reload with a new program, start-first", 8, "start-first", []step{newProgram}},
	{"scale", 1, "stop-first", []step{scale(8), scale(2), scale(1)}},
	{"program that never becomes ready", 8, "stop-first", []step{
		{
			command: []string{"reload"}, code: 1, record: eventtype.Reload, made: stoppedAtTheFirst, unmade: same,
			prepare: func(s *site) { s.write("hsu.yaml", config("./bad", 8, "stop-first")) },
		},
		{
			command: []string{"reload"}, record: eventtype.Reload, made: running(8), unmade: running(8),
			prepare: func(s *site) { s.write("hsu.yaml", config("./program", 8, "stop-first")) },
		},
	}},
	{"upgrade in place", 8, "stop-first", []step{{
		command: []string{"upgrade"}, prepare: (*site).installNextMaster, made: upgraded,
	}}},
	{"detach and start", 8, "stop-first", []step{{command: []string{"detach"}, detaches: true, made: same}}},
}

var (
	restart    = step{command: []string{"worker", "restart", "a"}, record: "restart", made: replaced, unmade: same}
	newProgram = step{
		command: []string{"reload"}, record: eventtype.Reload, prepare: (*site).install, made: replaced, unmade: same,
	}
)

func scale(n int) step {
	return step{
		command: []string{"worker", "scale", fmt.Sprint("a=", n)}, record: eventtype.Scale,
		made: func(_ *site, before, after harness.Dump) error {
			was, is := before.Instances(), after.Instances()
			for id, instance := range is {
				if former, exists := was[id]; exists && former != instance {
					return fmt.Errorf("%s is %+v, before %+v", id, instance, former)
				}
			}
			return running(n)(nil, before, after)
		},
		unmade: same,
	}
}

// running expects that the workers are n ones that run.
func running(n int) check {
	return func(_ *site, _, after harness.Dump) error {
		for _, w := range after.Workers {
			if !w.Running() || w.Outdated {
				return fmt.Errorf("%s is not as wanted: %+v", w.ID, w)
			}
		}
		if len(after.Workers) != n {
			return fmt.Errorf("there are %d workers, want %d", len(after.Workers), n)
		}
		return nil
	}
}

// same expects that the workers are the processes that they were.
func same(_ *site, before, after harness.Dump) error {
	if was, is := before.Instances(), after.Instances(); !maps.Equal(was, is) {
		return fmt.Errorf("the workers are %v, before %v", is, was)
	}
	return nil
}

// replaced expects that all of the workers are others than they were.
func replaced(s *site, before, after harness.Dump) error {
	is := after.Instances()
	for id, former := range before.Instances() {
		// A start that the kill has cut off is made again.
		if n := is[id].Incarnation - former.Incarnation; n < 1 || n > 2 || n == 2 && !s.killed {
			return fmt.Errorf("%s is %+v, before %+v", id, is[id], former)
		}
	}
	return running(len(before.Workers))(s, before, after)
}

// stoppedAtTheFirst expects that one worker does not run, and that the others are the same as before.
func stoppedAtTheFirst(_ *site, before, after harness.Dump) error {
	was, is := before.Instances(), after.Instances()
	failed := 0
	for _, w := range after.Workers {
		if !w.Running() {
			failed++
		} else if is[w.ID] != was[w.ID] {
			return fmt.Errorf("%s is %+v, before %+v", w.ID, is[w.ID], was[w.ID])
		}
	}
	if failed != 1 || len(is) != len(was) {
		return fmt.Errorf("%d of %d workers do not run, want 1 of %d", failed, len(is), len(was))
	}
	return nil
}

// upgraded expects the next version of the master and the same workers.
func upgraded(s *site, before, after harness.Dump) error {
	if r := s.CLI("status"); !strings.Contains(r.Stdout, "master "+s.version+" is running") {
		return fmt.Errorf("status: %+v, want version %s", r, s.version)
	}
	if !s.killed && after.MasterPID != before.MasterPID {
		return errors.New("the master is another process")
	}
	return same(s, before, after)
}

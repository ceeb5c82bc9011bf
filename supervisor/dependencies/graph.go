// Package dependencies decides which conditions the workers of a unit wait for before a start, and the order in which
// units start and stop. It is pure: it works with the units and with values that describe their workers.
package dependencies

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Graph is a set of units with the dependencies between them. It does not change.
type Graph struct {
	units      map[string]*unit.Spec
	dependents map[string][]string
	order      []string
}

// NewGraph returns the graph of the units, which have passed [Check] and have their defaults.
func NewGraph(units []unit.Spec) *Graph {
	g := &Graph{units: make(map[string]*unit.Spec, len(units)), dependents: map[string][]string{}}
	for i := range units {
		u := &units[i]
		g.units[u.Name] = u
		for _, d := range u.DependsOn {
			g.dependents[d.Unit] = append(g.dependents[d.Unit], u.Name)
		}
	}
	walk(units, func(name string) { g.order = append(g.order, name) }, func([]string) {})
	return g
}

// Order returns the names of the units, each one after those that it depends on, otherwise as they were given.
func (g *Graph) Order() []string { return g.order }

// Dependents returns the names of the units that directly depend on the unit.
func (g *Graph) Dependents(name string) []string { return g.dependents[name] }

// StopGrace returns the longest time that an orderly stop of all workers takes if each one uses its whole grace: those
// of a unit are stopped when the ones that depend on them have ended.
func (g *Graph) StopGrace() time.Duration {
	var longest time.Duration
	above := make(map[string]time.Duration, len(g.order)) // of the dependents of a unit
	for _, name := range slices.Backward(g.order) {
		u := g.units[name]
		took := above[name] + u.StopTime()
		longest = max(longest, took)
		for _, d := range u.DependsOn {
			above[d.Unit] = max(above[d.Unit], took)
		}
	}
	return longest
}

// Compare compares the positions of two units in [Graph.Order]. Units that the graph does not have come last.
func (g *Graph) Compare() func(a, b string) int {
	at := make(map[string]int, len(g.order))
	for i, name := range g.order {
		at[name] = i
	}
	position := func(name string) int {
		if i, known := at[name]; known {
			return i
		}
		return len(at)
	}
	return func(a, b string) int { return position(a) - position(b) }
}

// Check returns an error that names each dependency that can never be met.
func Check(units []unit.Spec) error {
	byName := make(map[string]*unit.Spec, len(units))
	for i := range units {
		byName[units[i].Name] = &units[i]
	}
	var errs []error
	for _, u := range units {
		for _, d := range u.DependsOn {
			if err := check(d, u.Name, byName[d.Unit]); err != nil {
				errs = append(errs, fmt.Errorf("unit %s: depends on %q: %w", u.Name, d.Unit, err))
			}
		}
	}
	walk(units, func(string) {}, func(cycle []string) {
		errs = append(errs, fmt.Errorf("these units depend on each other: %s", shortened(cycle)))
	})
	return errors.Join(errs...)
}

func check(d unit.Dependency, dependent string, on *unit.Spec) error {
	switch {
	case d.Condition != unit.Started && d.Condition != unit.Ready && d.Condition != unit.Completed:
		return fmt.Errorf("condition %q: must be %s, %s or %s", d.Condition, unit.Started, unit.Ready, unit.Completed)
	case d.Unit == dependent:
		return errors.New("a unit cannot depend on itself")
	case on == nil:
		return errors.New("there is no such unit")
	case d.Condition == unit.Completed && !on.Starts():
		return errors.New("it is unmanaged: how its process ends is not known")
	case on.Schedule.Cron != "":
		return errors.New("it has a schedule: nothing can wait for it")
	case d.Condition == unit.Completed && (on.Restart.Mode == "" || on.Restart.Mode == unit.RestartAlways):
		return errors.New("it is always restarted and never completes")
	}
	return nil
}

// walk visits each unit after those that it depends on. It reports each cycle once: a path from a unit to itself.
func walk(units []unit.Spec, visit func(name string), report func(cycle []string)) {
	byName := make(map[string]*unit.Spec, len(units))
	for i := range units {
		byName[units[i].Name] = &units[i]
	}
	visited := make(map[string]bool, len(units))
	var path []string
	var enter func(u *unit.Spec)
	enter = func(u *unit.Spec) {
		visited[u.Name] = true
		path = append(path, u.Name)
		for _, d := range u.DependsOn {
			on := byName[d.Unit]
			switch {
			case on == nil || on.Name == u.Name:
			case !visited[on.Name]:
				enter(on)
			default:
				if i := slices.Index(path, on.Name); i >= 0 {
					report(append(slices.Clone(path[i:]), on.Name))
				}
			}
		}
		path = path[:len(path)-1]
		visit(u.Name)
	}
	for i := range units {
		if u := &units[i]; !visited[u.Name] {
			enter(u)
		}
	}
}

// shortened joins the names of a cycle, without the middle of a long one.
func shortened(cycle []string) string {
	const most = 10
	if left := len(cycle) - most; left > 0 {
		cycle = slices.Concat(cycle[:most/2], []string{"(" + strconv.Itoa(left) + " more)"}, cycle[len(cycle)-most/2:])
	}
	return strings.Join(cycle, " -> ")
}

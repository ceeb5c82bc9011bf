package supervisor

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/supervisor/unit"
)

func TestChangesOfTheSet(t *testing.T) {
	web := unit.Spec{Name: "web", Path: "/bin/web", Replicas: 2}
	with := func(change func(*unit.Spec)) unit.Spec {
		changed := web
		change(&changed)
		return changed
	}
	db := unit.Spec{Name: "db", Path: "/bin/db", Replicas: 1}
	both := []string{"web-0", "web-1"}
	for name, c := range map[string]struct {
		to       []unit.Spec
		outdated []string
		want     []Change
	}{
		"the same": {to: []unit.Spec{web, db}},
		"another one": {to: []unit.Spec{web, db, {Name: "new", Replicas: 1}}, want: []Change{
			{"new", ActionStart, []string{"new-0"}, []string{"new unit"}},
		}},
		"one less": {to: []unit.Spec{db}, want: []Change{{"web", ActionStop, both, []string{"unit removed"}}}},
		"arguments": {
			to: []unit.Spec{with(func(u *unit.Spec) { u.Args = []string{"-v"} }), db}, outdated: both,
			want: []Change{{"web", ActionReplace, both, []string{"command"}}},
		},
		"arguments of a worker that never started": {
			to: []unit.Spec{with(func(u *unit.Spec) { u.Args = []string{"-v"} }), db}, outdated: []string{"web-0"},
			want: []Change{
				{"web", ActionUpdate, []string{"web-1"}, []string{"command"}},
				{"web", ActionReplace, []string{"web-0"}, []string{"command"}},
			},
		},
		"the executable alone, of one worker": {
			to: []unit.Spec{web, db}, outdated: []string{"web-1"},
			want: []Change{{"web", ActionReplace, []string{"web-1"}, []string{"changed since its start"}}},
		},
		"environment, grace and fewer replicas": {
			to: []unit.Spec{with(func(u *unit.Spec) {
				u.Env, u.Stop.Grace, u.Replicas = []string{"A=b"}, time.Minute, 1
			}), db},
			outdated: both,
			want: []Change{
				{"web", ActionReplace, []string{"web-0"}, []string{"environment"}},
				{"web", ActionUpdate, []string{"web-0"}, []string{"stop"}},
				{"web", ActionStop, []string{"web-1"}, []string{"replicas 2 to 1"}},
			},
		},
		"more replicas": {to: []unit.Spec{with(func(u *unit.Spec) { u.Replicas = 4 }), db}, want: []Change{
			{"web", ActionStart, []string{"web-2", "web-3"}, []string{"replicas 2 to 4"}},
		}},
		"none": {to: nil, want: []Change{
			{"web", ActionStop, both, []string{"unit removed"}},
			{"db", ActionStop, []string{"db-0"}, []string{"unit removed"}},
		}},
	} {
		got := changesOf([]unit.Spec{web, db}, c.to, func(u *unit.Spec) []string {
			if u.Name != web.Name {
				return nil
			}
			return slices.Clone(c.outdated)
		})
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

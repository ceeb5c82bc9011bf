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
		retried  []string
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
		"another check, with a failed worker": {
			to:      []unit.Spec{with(func(u *unit.Spec) { u.Health.Readiness.Service = "acme.Search" }), db},
			retried: []string{"web-1", "web-2"},
			want: []Change{
				{"web", ActionUpdate, both, []string{"health"}},
				{"web", ActionRetry, []string{"web-1"}, []string{"health"}},
			},
		},
		"the same, with a worker that an earlier change has not reached": {
			to: []unit.Spec{web, db}, retried: []string{"web-1"},
			want: []Change{{"web", ActionRetry, []string{"web-1"}, []string{"changed since its end"}}},
		},
		"more replicas": {to: []unit.Spec{with(func(u *unit.Spec) { u.Replicas = 4 }), db}, want: []Change{
			{"web", ActionStart, []string{"web-2", "web-3"}, []string{"replicas 2 to 4"}},
		}},
		"none": {to: nil, want: []Change{
			{"web", ActionStop, both, []string{"unit removed"}},
			{"db", ActionStop, []string{"db-0"}, []string{"unit removed"}},
		}},
	} {
		got := changesOf([]unit.Spec{web, db}, c.to, func(u *unit.Spec) due {
			if u.Name != web.Name {
				return due{}
			}
			return due{outdated: slices.Clone(c.outdated), retried: slices.Clone(c.retried)}
		})
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

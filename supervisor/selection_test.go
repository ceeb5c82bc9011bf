package supervisor

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSelect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMaster(t, newFakeOS(t), t.TempDir(), 3)
		settle(time.Second)
		for _, test := range []struct {
			all   bool
			names string
			want  string // an error if it begins with "no "
		}{
			{true, "", "worker-0 worker-1 worker-2"},
			{false, "", ""},
			{false, "worker-2 worker-0 worker-2", "worker-0 worker-2"},
			{false, "worker-1 worker", "worker-0 worker-1 worker-2"},
			{false, "worker-0 wroker", `no such worker or unit: "wroker" (did you mean "worker"?)`},
			{false, "worker-3", `no such worker or unit: "worker-3" (did you mean "worker-2"?)`},
			{false, "redis", `no such worker or unit: "redis"`},
		} {
			var got []string
			workers, err := m.Select(test.all, strings.Fields(test.names)...)
			for _, w := range workers {
				got = append(got, w.ID)
			}
			if err != nil {
				got = []string{err.Error()}
			}
			if text := strings.Join(got, " "); text != test.want {
				t.Errorf("Select(%v, %s) = %s, want %s", test.all, test.names, text, test.want)
			}
		}
		m.scale("worker", 0)
		if workers, err := m.Select(false, "worker"); err != nil || len(workers) != 0 {
			t.Errorf("a unit without workers selects %v, %v", workers, err)
		}
		m.stop(nil)
	})
}

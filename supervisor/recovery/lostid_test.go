package recovery

import (
	"testing"

	"github.com/core-tools/hsu-master/supervisor/process"
)

func TestMasterOfTheLivingIsThatOfMostWorkersOfThisFolder(t *testing.T) {
	const ours, other = "1:2", "1:3"
	worker := func(pid int, master, dir string, uid uint32) process.Holder {
		return process.Holder{PID: pid, SID: pid, UID: uid, MasterID: master, StateDir: dir}
	}
	descendant := worker(9, "b", ours, 7)
	descendant.SID = 1
	for name, c := range map[string]struct {
		holders []process.Holder
		want    string
	}{
		"nobody":         {nil, ""},
		"another folder": {[]process.Holder{worker(1, "a", other, 7)}, ""},
		"another user":   {[]process.Holder{worker(1, "a", ours, 8)}, ""},
		"a descendant":   {[]process.Holder{descendant}, ""},
		"no id":          {[]process.Holder{worker(1, "", ours, 7), worker(2, "b", ours, 7)}, "b"},
		"one":            {[]process.Holder{worker(1, "a", ours, 7), worker(2, "x", other, 7)}, "a"},
		"most": {
			[]process.Holder{worker(1, "a", ours, 7), worker(2, "b", ours, 7), worker(3, "b", ours, 7)}, "b",
		},
		"as many: oldest": {[]process.Holder{worker(1, "a", ours, 7), worker(2, "b", ours, 7)}, "a"},
	} {
		if got := masterOf(c.holders, ours, func(h process.Holder) bool { return h.UID == 7 }); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

package launcher

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/cgroup"
	"github.com/core-tools/hsu-master/supervisor/placement"
)

// A worker whose limits are required and cannot be enforced does not start; another one starts.
func TestConfine(t *testing.T) {
	tree := t.TempDir() // without the files of a cgroup, so that nothing can be enforced
	const reason = "there are no cgroups"
	for name, test := range map[string]struct {
		cgroups string
		limits  cgroup.Limits
		want    string // the limits that are not enforced
	}{
		"no cgroups, no limits":  {"", cgroup.Limits{Required: true}, ""},
		"no cgroups":             {"", cgroup.Limits{PIDs: 7}, ""},
		"no cgroups, required":   {"", cgroup.Limits{PIDs: 7, Required: true}, "limits.pids: " + reason},
		"cgroups, no limits":     {tree, cgroup.Limits{Required: true}, ""},
		"no controller":          {tree, cgroup.Limits{PIDs: 7}, ""},
		"no controller, require": {tree, cgroup.Limits{PIDs: 7, Required: true}, "limits.pids: open " + tree},
	} {
		t.Run(name, func(t *testing.T) {
			rec := records.Instance{Token: strings.ReplaceAll(name, " ", "-")}
			const required = "limits.enforce is required: "
			l := &osLauncher{cgroups: placement.Below(test.cgroups, reason)}
			group, err := l.confine("worker-0", rec, test.limits)
			if err == nil && group.confine != nil {
				err = group.confine()
			}
			switch {
			case test.want == "" && err != nil:
				t.Errorf("the worker does not start: %v", err)
			case test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), required+test.want)):
				t.Errorf("the start fails with %v, want %q", err, test.want)
			}
			if _, err := os.Stat(filepath.Join(tree, "worker-0."+rec.Token)); (err == nil) != (test.cgroups != "") {
				t.Errorf("the cgroup: %v", err)
			}
		})
	}
}

// The limits of an adopted worker are those of the cgroup that its record names, if that exists.
func TestLimitsOfAnAdoptedInstance(t *testing.T) {
	tree, rec := t.TempDir(), records.Instance{Token: "token"}
	const reason = "there are no cgroups"
	limits := cgroup.Limits{PIDs: 7}
	for _, test := range []struct {
		l    osLauncher
		want string
	}{
		{osLauncher{cgroups: placement.Below("", reason)}, "limits.pids: " + reason},
		{
			osLauncher{cgroups: placement.Below(tree, "")},
			"limits.pids: the worker was started without a cgroup that this master manages",
		},
	} {
		inst := osFamily{Family: test.l.family("worker-0", rec)}
		inst.noCgroup = test.l.noCgroup(inst.Cgroup)
		if got := inst.Limit(limits); len(got) != 1 || !strings.HasPrefix(got[0], test.want) {
			t.Errorf("not enforced: %q, want %q", got, test.want)
		}
		if got := inst.OutOfMemory(); got != "" {
			t.Errorf("without a cgroup: %q", got)
		}
	}
	dir := filepath.Join(tree, "worker-0.token")
	for name, text := range map[string]string{
		"memory.max": "max", "cpu.max": "max 100000", "pids.max": "", "memory.events": "oom_kill 1",
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := osLauncher{cgroups: placement.Below(tree, "")}
	inst := osFamily{Family: l.family("worker-0", rec)}
	if got := inst.Limit(limits); len(got) > 0 {
		t.Errorf("not enforced: %q", got)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "pids.max")); string(text) != "7" {
		t.Errorf("pids.max has %q, %v", text, err)
	}
	if got := inst.OutOfMemory(); got == "" {
		t.Error("the kernel has killed a process, and the instance does not say so")
	}
}

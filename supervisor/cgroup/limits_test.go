package cgroup

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fakeTree makes plain files that stand for a cgroup with the files of its limits, and for its parent, which is
// returned too.
func fakeTree(t *testing.T, controllers string) (parent, worker string) {
	t.Helper()
	parent = filepath.Join(t.TempDir(), "hsu.slice")
	worker = filepath.Join(parent, "worker-0.token")
	for path, content := range map[string]string{
		"cgroup.controllers": controllers, "cgroup.subtree_control": "", "cgroup.procs": "",
		Master + "/cgroup.procs": "", "worker-0.token/cgroup.procs": "",
	} {
		put(t, filepath.Join(parent, path), content)
	}
	for word := range strings.FieldsSeq(controllers) {
		put(t, filepath.Join(worker, word+".max"), "")
	}
	return parent, worker
}

func put(t *testing.T, path, content string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(path, []byte(content), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestApply(t *testing.T) {
	page := int64(os.Getpagesize())
	for name, test := range map[string]struct {
		limits Limits
		want   string
	}{
		"none":  {Limits{}, "max, max 100000, max"},
		"all":   {Limits{Memory: 64 << 20, CPU: 1.5, PIDs: 200}, "67108864, 150000 100000, 200"},
		"least": {Limits{Memory: MinMemory, CPU: MinCPU, PIDs: 1}, "1048576, 1000 100000, 1"},
		"most":  {Limits{CPU: MaxCPU, PIDs: MaxPIDs}, "max, 100000000000 100000, 4194304"},
		"memory": {
			Limits{Memory: 300*page + 1, Required: true}, strconv.FormatInt(300*page, 10) + ", max 100000, max",
		},
		"a third of a processor": {Limits{CPU: 1.0 / 3}, "max, 33333 100000, max"},
	} {
		t.Run(name, func(t *testing.T) {
			_, dir := fakeTree(t, "cpu memory pids")
			if left := Apply(dir, test.limits); len(left) > 0 {
				t.Errorf("not enforced: %q", left)
			}
			got := strings.Join([]string{
				content(t, dir, "memory.max"), content(t, dir, "cpu.max"), content(t, dir, "pids.max"),
			}, ", ")
			if got != test.want {
				t.Errorf("the limits are %s, want %s", got, test.want)
			}
		})
	}
}

// A limit that is in force already is not written: that has an effect in the kernel, and needs rights.
func TestApplyWritesOnlyWhatDiffers(t *testing.T) {
	_, dir := fakeTree(t, "cpu memory pids")
	put(t, filepath.Join(dir, "memory.max"), "67108864\n")
	put(t, filepath.Join(dir, "cpu.max"), "max 100000\n")
	before := time.Unix(1, 0)
	for _, name := range []string{"memory.max", "cpu.max", "pids.max"} {
		if err := os.Chtimes(filepath.Join(dir, name), before, before); err != nil {
			t.Fatal(err)
		}
	}
	if left := Apply(dir, Limits{Memory: 64 << 20, PIDs: 7}); len(left) > 0 {
		t.Errorf("not enforced: %q", left)
	}
	for name, want := range map[string]string{"memory.max": "67108864\n", "cpu.max": "max 100000\n", "pids.max": "7"} {
		if got := content(t, dir, name); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.ModTime().Equal(before) == (name == "pids.max") {
			t.Errorf("%s was written at %v, %v; only pids.max differs", name, info.ModTime(), err)
		}
	}
}

// What cannot be enforced is reported with its keys, and the other limits are set.
func TestApplyReportsWhatItCannotEnforce(t *testing.T) {
	parent, dir := fakeTree(t, "pids")
	if err := os.Mkdir(filepath.Join(dir, "memory.max"), 0o700); err != nil { // which cannot be written
		t.Fatal(err)
	}
	left := Apply(dir, Limits{Memory: 64 << 20, CPU: 1, PIDs: 7})
	want := []string{
		"limits.memory: read the limit: ",
		"limits.cpu: " + parent + " does not have the controller cpu: let systemd delegate it (Delegate=yes), ",
	}
	if !slices.EqualFunc(left, want, strings.HasPrefix) {
		t.Errorf("%q, want %q", left, want)
	}
	if got := content(t, dir, "pids.max"); got != "7" {
		t.Errorf("pids.max has %q, want 7", got)
	}
}

func TestUnenforcedHasTheKeysOfALimit(t *testing.T) {
	for want, limits := range map[string]Limits{
		"":                        {Required: true},
		"limits.cpu: why":         {CPU: 1},
		"limits.memory: why":      {Memory: 1 << 30},
		"limits.cpu, limits.pids": {CPU: 2, PIDs: 3},
	} {
		got := strings.Join(limits.Unenforced("why"), "; ")
		if strings.TrimSuffix(got, ": why") != strings.TrimSuffix(want, ": why") {
			t.Errorf("%+v: %q, want %q", limits, got, want)
		}
		if limits.None() != (want == "") {
			t.Errorf("%+v: None() = %t", limits, limits.None())
		}
	}
}

func TestCheck(t *testing.T) {
	for _, good := range []Limits{
		{},
		{Required: true},
		{Memory: MinMemory, CPU: MinCPU, PIDs: 1},
		{Memory: math.MaxInt64, CPU: MaxCPU, PIDs: MaxPIDs},
	} {
		if err := good.Check(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for key, bad := range map[string]Limits{
		"limits.memory": {Memory: MinMemory - 1}, "limits.memory: -": {Memory: -MinMemory},
		"limits.cpu": {CPU: MinCPU / 2}, "limits.cpu: -": {CPU: -1}, "limits.cpu: NaN": {CPU: math.NaN()},
		"limits.cpu: +Inf": {CPU: math.Inf(1)}, "limits.pids": {PIDs: MaxPIDs + 1}, "limits.pids: -": {PIDs: -1},
	} {
		if err := bad.Check(); err == nil || !strings.HasPrefix(err.Error(), key) {
			t.Errorf("%+v: %v, want a fault of %s", bad, err, key)
		}
	}
}

// A process in the parent is moved before a controller is enabled there. Plain files do not forget it.
func TestEnable(t *testing.T) {
	parent, dir := fakeTree(t, "cpu memory pids")
	put(t, filepath.Join(parent, "cgroup.procs"), "4711\n")
	if err := os.Remove(filepath.Join(dir, "memory.max")); err != nil { // as before the controller is enabled
		t.Fatal(err)
	}
	left := Apply(dir, Limits{Memory: 64 << 20})
	if moved := content(t, parent, Master, "cgroup.procs"); moved != "4711" {
		t.Errorf("moved: %q, want process 4711", moved)
	}
	if enabled := content(t, parent, "cgroup.subtree_control"); enabled != "+memory" {
		t.Errorf("written to cgroup.subtree_control: %q", enabled)
	}
	// A plain file does not come to be by that.
	if len(left) != 1 || !strings.HasPrefix(left[0], "limits.memory: read the limit: ") {
		t.Errorf("not enforced: %q, want limits.memory", left)
	}
	put(t, filepath.Join(parent, "cgroup.subtree_control"), "cpu memory\n")
	if err := enable(parent, "memory"); err != nil || content(t, parent, "cgroup.subtree_control") != "cpu memory\n" {
		t.Errorf("a controller that is enabled already: %v, or it was enabled again", err)
	}
}

// In the cgroup of its service the master enables nothing: systemd could not start the next master there.
func TestServiceKeepsItsOwnCgroup(t *testing.T) {
	parent, _ := fakeTree(t, "cpu memory pids")
	service := filepath.Join(filepath.Dir(parent), "hsu-master.service")
	if err := os.Rename(parent, service); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(service, "cgroup.procs"), strconv.Itoa(os.Getpid())+"\n")
	left := Apply(filepath.Join(service, "none"), Limits{PIDs: 7})
	if len(left) != 1 || left[0] != "limits.pids: "+errService.Error() {
		t.Errorf("not enforced: %q, want %q", left, errService)
	}
	if moved := content(t, service, Master, "cgroup.procs"); moved != "" {
		t.Errorf("the master was moved: %q", moved)
	}
	if enabled := content(t, service, "cgroup.subtree_control"); enabled != "" {
		t.Errorf("written to cgroup.subtree_control: %q", enabled)
	}
	put(t, filepath.Join(service, "cgroup.procs"), "") // with DelegateSubgroup=
	if err := enable(service, "pids"); err != nil || content(t, service, "cgroup.subtree_control") != "+pids" {
		t.Errorf("without the master in it: %v, or the controller was not enabled", err)
	}
}

func TestOutOfMemory(t *testing.T) {
	const killed, limit = "the kernel has killed ", " because it reached limits.memory"
	for events, want := range map[string]string{
		"": "", "low 0\nhigh 0\nmax 7\noom 0\noom_kill 0\n": "",
		"oom 1\noom_kill 1\noom_group_kill 0\n": killed + "a process of it" + limit,
		"oom 2\noom_kill 3\n":                   killed + "3 processes of it" + limit,
		"oom 0\noom_kill 1\n":                   killed + "a process of it because the host ran out of memory",
	} {
		dir := t.TempDir()
		put(t, filepath.Join(dir, "memory.events"), events)
		if got := OutOfMemory(dir); !strings.HasPrefix(got, want) || (got == "") != (want == "") {
			t.Errorf("%q: %q, want %q", events, got, want)
		}
	}
	if got := OutOfMemory(t.TempDir()); got != "" {
		t.Errorf("without the controller: %q", got)
	}
}

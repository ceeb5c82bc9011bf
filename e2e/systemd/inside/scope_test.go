//go:build inside

package inside

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const hsuSlice = "/sys/fs/cgroup/hsu.slice"

// scopeOf returns the name of the scope of the service's workers.
func scopeOf(t *testing.T) string {
	t.Helper()
	return "hsu-workers-" + strings.TrimSpace(readFile(t, "/var/lib/hsu-master/master-id")) + ".scope"
}

// cgroupOf returns the cgroup of a process.
func cgroupOf(t *testing.T, pid int) string {
	t.Helper()
	_, path, _ := strings.Cut(strings.TrimSpace(readFile(t, fmt.Sprintf("/proc/%d/cgroup", pid))), "0::")
	return path
}

// wantInScope fails unless each worker is in the scope, and the scope contains nothing else.
func wantInScope(t *testing.T, s state) {
	t.Helper()
	scope := scopeOf(t)
	if got := command(t, "systemctl", "is-active", scope); got != "active" {
		t.Errorf("%s is %s", scope, got)
	}
	if s.Scope != scope {
		t.Errorf("state dump shows the scope %q, want %s", s.Scope, scope)
	}
	want := map[string]bool{}
	for _, w := range s.Workers {
		folder := w.ID + "." + w.Token
		want[folder] = true
		if got := cgroupOf(t, w.PID); got != "/hsu.slice/"+scope+"/"+folder {
			t.Errorf("%s is in %s, want %s of %s", w.ID, got, folder, scope)
		}
	}
	waitFor(t, 10*time.Second, func() error { // the pause process leaves after the last start
		folders, err := filepath.Glob(filepath.Join(hsuSlice, scope, "*/cgroup.procs"))
		for _, path := range folders {
			if folder := filepath.Base(filepath.Dir(path)); !want[folder] {
				err = errors.Join(err, fmt.Errorf("there is also the cgroup %s", folder))
			}
		}
		return err
	})
	if left, err := os.ReadFile(filepath.Join(hsuSlice, scope, "cgroup.procs")); err != nil || len(left) > 0 {
		t.Errorf("the scope's own cgroup has the processes %q, %v", left, err)
	}
}

// wantNoScope fails unless all scopes of workers end.
func wantNoScope(t *testing.T) {
	t.Helper()
	waitFor(t, 10*time.Second, func() error {
		folders, err := filepath.Glob(hsuSlice + "/*.scope")
		if err == nil && len(folders) > 0 {
			err = fmt.Errorf("there are %v", folders)
		}
		units := command(t, "systemctl", "list-units", "--all", "--plain", "--no-legend", "hsu-workers-*.scope")
		if units != "" {
			err = errors.Join(err, errors.New("systemd knows "+units))
		}
		return err
	})
}

// wantSame fails unless the workers are the same processes as before.
func wantSame(t *testing.T, after string, before, now state) {
	t.Helper()
	for i, w := range now.Workers {
		if w.PID != before.Workers[i].PID || w.Incarnation != before.Workers[i].Incarnation {
			t.Errorf("after %s %s is process %d of incarnation %d, want %d of %d", after, w.ID, w.PID, w.Incarnation,
				before.Workers[i].PID, before.Workers[i].Incarnation)
		}
	}
}

func TestServiceManagerLeavesTheWorkersAlone(t *testing.T) {
	first := install(t)
	wantInScope(t, first)
	command(t, "systemctl", "daemon-reload")
	wantSame(t, "daemon-reload", first, ready(t, 0))
	command(t, "systemctl", "daemon-reexec")
	waitFor(t, 30*time.Second, func() error { // it takes no connections for a moment
		return exec.Command("systemctl", "is-active", service).Run()
	})
	wantSame(t, "daemon-reexec", first, ready(t, 0))
	command(t, "systemctl", "kill", "-s", "KILL", service)
	second := ready(t, first.MasterPID)
	wantSame(t, "kill", first, second)
	wantInScope(t, second)

	command(t, "systemctl", "restart", service)
	third := ready(t, second.MasterPID)
	for i, w := range third.Workers {
		if w.PID == first.Workers[i].PID {
			t.Errorf("restart has left %s running, which the master stops in order", w.ID)
		}
	}
	wantInScope(t, third)
	command(t, "systemctl", "stop", socket, service)
	if left := ours(t); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
	wantNoScope(t)
}

// A worker that dies alone takes the scope along, and gets a new one.
func TestScopeThatAnOperatorStopsIsMadeAgain(t *testing.T) {
	first := install(t)
	scope := scopeOf(t)
	made := command(t, "systemctl", "show", "--value", "-p", "InvocationID", scope)
	command(t, "systemctl", "stop", scope)
	second := state{}
	waitFor(t, 60*time.Second, func() (err error) {
		second = ready(t, 0)
		for i, w := range second.Workers {
			if w.PID == first.Workers[i].PID {
				return fmt.Errorf("%s is still process %d", w.ID, w.PID)
			}
		}
		return nil
	})
	if second.MasterPID != first.MasterPID {
		t.Errorf("the master is process %d, want %d still", second.MasterPID, first.MasterPID)
	}
	wantInScope(t, second)
	if again := command(t, "systemctl", "show", "--value", "-p", "InvocationID", scope); again == made {
		t.Error("the scope is the same")
	}
}

// A stop of the slice of all scopes stops the services first, and so their workers in order. At its next start the
// service can write to the slice that is made then.
func TestSliceThatAnOperatorStops(t *testing.T) {
	first := install(t)
	command(t, "systemctl", "stop", "hsu.slice") // the socket starts the service again at the next connection
	if got := property(t, "ActiveState"); got != "inactive" {
		t.Errorf("the service is %s", got)
	}
	if left := ours(t); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
	wantNoScope(t)
	journal := command(t, "journalctl", "--no-pager", "-o", "cat", fmt.Sprintf("_PID=%d", first.MasterPID))
	if !strings.Contains(journal, "master stopping") || strings.Contains(journal, "worker backoff") {
		t.Errorf("a worker ended before its master:\n%s", journal)
	}
	command(t, "systemctl", "start", service)
	wantInScope(t, ready(t, first.MasterPID))
}

const slowToEnd = `
units:
  deaf:
    kind: managed
    command: [/bin/sh, -c, "trap '' TERM; while :; do sleep 1; done"]
    start: {settle: 20ms}
    stop: {grace: 1s}
`

// ignoresTerm matches the status of a process (proc_pid_status(5)) that ignores signal 15.
var ignoresTerm = regexp.MustCompile(`(?m)^SigIgn:\t[0-9a-f]{12}[4-7c-f][0-9a-f]{3}$`)

// A scope that is being stopped takes no new worker, as systemd would kill it with the others.
func TestScopeThatTakesLongToEnd(t *testing.T) {
	if err := os.MkdirAll(filepath.Dir(configFile), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(configFile)) })
	if err := os.WriteFile(configFile, []byte(slowToEnd), 0o644); err != nil {
		t.Fatal(err)
	}
	cleanUpService(t)
	command(t, master, "systemd", "install", "--enable", "--config", configFile)
	one := map[string]string{"deaf-0": "running"}
	two := map[string]string{"deaf-0": "running", "deaf-1": "running"}
	first, _ := awaitStatuses(t, 0, one)
	waitFor(t, 10*time.Second, func() error { // the shell has not come to its command at once
		if status := processStatus(t, first["deaf-0"]); !ignoresTerm.MatchString(status) {
			return fmt.Errorf("deaf-0 does not ignore SIGTERM:\n%s", status)
		}
		return nil
	})
	scope := scopeOf(t)
	isEnding := func() error {
		got := command(t, "systemctl", "show", "--value", "-p", "ActiveState", scope)
		if got != "deactivating" {
			return fmt.Errorf("the scope is %s", got)
		}
		return nil
	}
	command(t, "systemctl", "stop", "--no-block", scope)
	waitFor(t, 10*time.Second, isEnding)
	for _, n := range []string{"2", "1", "2"} { // the second start is one that does not ask systemd
		command(t, master, "worker", "scale", "deaf="+n)
	}
	second, _ := awaitStatuses(t, 0, two)
	if got := cgroupOf(t, second["deaf-1"]); !strings.HasPrefix(got, "/system.slice/"+service+"/") {
		t.Errorf("deaf-1 is in %s, and the scope is ending", got)
	}
	if err := isEnding(); err != nil || second["deaf-0"] != first["deaf-0"] {
		t.Fatalf("deaf-0 was process %d, and is %d: %v", first["deaf-0"], second["deaf-0"], err)
	}
	command(t, "systemctl", "kill", "-s", "KILL", scope)
	waitFor(t, 60*time.Second, func() error { // systemd is asked again after 10 s
		command(t, master, "worker", "scale", "deaf=1")
		awaitStatuses(t, 0, one)
		command(t, master, "worker", "scale", "deaf=2")
		now, _ := awaitStatuses(t, 0, two)
		if got := cgroupOf(t, now["deaf-1"]); !strings.HasPrefix(got, "/hsu.slice/"+scope+"/") {
			return fmt.Errorf("deaf-1 is in %s", got)
		}
		return nil
	})
}

// The master dies at each moment around the making of the scope. Whatever it has made then ends by itself, and the next
// master needs none of it.
func TestMasterThatDiesWhileItMakesTheScope(t *testing.T) {
	for _, moment := range []string{
		"before-fork", "after-fork", // of the pause process
		"before-scope", "after-scope",
		"before-cgroup", "after-cgroup", // of the pause process
		"before-cgroup:2", "after-cgroup:2", "before-fork:2", // of the first worker
	} {
		t.Run(moment, func(t *testing.T) {
			dropIn(t, "Restart=no\nEnvironment=HSU_CRASH_POINT="+moment)
			cleanUpService(t)
			// It fails, as the master dies before it reports READY.
			_ = exec.Command(crasher, "systemd", "install", "--enable", "--worker-path", worker,
				"--worker-count", "1").Run()
			waitFor(t, 30*time.Second, func() error {
				if got := property(t, "Result"); got != "signal" {
					return fmt.Errorf("the service ended with %s", got)
				}
				return nil
			})
			wantNoScope(t)
			if left := ours(t); len(left) > 0 {
				t.Errorf("processes left: %v", left)
			}
			waitFor(t, 10*time.Second, func() error { // it may not have come to see the end of its master
				if left := starters(t); len(left) > 0 {
					return fmt.Errorf("pause processes left: %v", left)
				}
				return nil
			})
			dropIn(t, "")
			command(t, "systemctl", "daemon-reload")
			command(t, "systemctl", "reset-failed", socket, service)
			command(t, "systemctl", "start", socket, service)
			s := state{}
			waitFor(t, 60*time.Second, func() (err error) {
				if s, err = dump(t); err == nil && (len(s.Workers) != 1 || s.Workers[0].Status != "running") {
					err = fmt.Errorf("state is %+v", s)
				}
				return err
			})
			wantInScope(t, s)
		})
	}
}

// starters lists the processes that execute no program yet.
func starters(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range paths {
		if line, err := os.ReadFile(path); err == nil && strings.HasPrefix(string(line), "hsu-master-start\x00") {
			found = append(found, path)
		}
	}
	return found
}

// replaced kills a worker and waits until another process is in its place.
func replaced(t *testing.T, before state, index int) (now state) {
	t.Helper()
	if err := syscall.Kill(before.Workers[index].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 30*time.Second, func() error {
		if now = ready(t, 0); now.Workers[index].PID == before.Workers[index].PID {
			return errors.New("the worker was not started again")
		}
		return nil
	})
	return now
}

// A master between the cgroup of a worker and its fork is killed, while another worker keeps the scope.
func TestCgroupOfAStartThatWasCutOffIsRemoved(t *testing.T) {
	faults := t.TempDir()
	dropIn(t, "Environment=HSU_FAULT_DIR="+faults)
	first := installProgram(t, crasher)
	fault := filepath.Join(faults, "after-cgroup")
	if err := os.WriteFile(fault, []byte("kill"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(first.Workers[2].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 30*time.Second, func() error {
		if s, err := dump(t); err == nil && s.MasterPID == first.MasterPID {
			return errors.New("the master lives")
		}
		return nil
	})
	if err := os.Remove(fault); err != nil {
		t.Fatal(err)
	}
	last := ready(t, first.MasterPID)
	if last.Workers[2].PID == first.Workers[2].PID || last.Workers[0].PID != first.Workers[0].PID {
		t.Errorf("workers were %+v and are %+v", first.Workers, last.Workers)
	}
	wantInScope(t, last)
}

// hider is a worker with a descendant that only its cgroup identifies: it has no environment, lease, parent or session
// of the worker.
const hider = `#!/bin/bash
(setsid env -i /usr/bin/sleep 4711 3>&- </dev/null >/dev/null 2>&1 &)
exec /usr/local/bin/hsu-worker "$@"
`

// A worker dies while no master runs. A process left in its cgroup is found in a plan, and killed.
func TestCgroupInTheScopeIdentifiesADescendant(t *testing.T) {
	const program = "/usr/local/bin/hiding-worker"
	if err := os.WriteFile(program, []byte(hider), 0o755); err != nil {
		t.Fatal(err)
	}
	dropIn(t, "Restart=no")
	first := installProgram(t, master, "--worker-path", program)
	victim := first.Workers[3]
	members := strings.Fields(readFile(t, filepath.Join("/sys/fs/cgroup", cgroupOf(t, victim.PID), "cgroup.procs")))
	hidden := ""
	for _, pid := range members {
		if pid != fmt.Sprint(victim.PID) {
			hidden = pid
		}
	}
	if len(members) != 2 || strings.Contains(readFile(t, "/proc/"+hidden+"/environ"), "HSU_") {
		t.Fatalf("the cgroup of %s has %v, want one descendant without environment", victim.ID, members)
	}
	command(t, "systemctl", "kill", "-s", "KILL", service)
	if err := syscall.Kill(victim.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 30*time.Second, func() error {
		// In a container, this setting of the service shows it another boot id.
		plan := command(t, "systemd-run", "--quiet", "--pipe", "--wait", "--property=ProtectKernelTunables=yes",
			master, "state", "plan", "--json", "--worker-path", program, "--worker-count", fmt.Sprint(workers))
		if left := "what is left of it is stopped first (process " + hidden + ")"; !strings.Contains(plan, left) {
			return fmt.Errorf("the plan has no %s:\n%s", left, plan)
		}
		return nil
	})
	command(t, "systemctl", "start", service)
	last := ready(t, first.MasterPID)
	if _, err := os.Stat("/proc/" + hidden); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the descendant %s is still there: %v", hidden, err)
	}
	if last.Workers[3].PID == victim.PID || last.Workers[0].PID != first.Workers[0].PID {
		t.Errorf("workers were %+v and are %+v", first.Workers, last.Workers)
	}
	wantInScope(t, last)
}

// Without the scope, workers start all the same, in the service. They are adopted as they are.
func TestWorkersStartWithoutAScope(t *testing.T) {
	// A manager that never answers, as PID 1 may while it is busy.
	silent, err := net.Listen("unix", filepath.Join(t.TempDir(), "private"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	for _, test := range []struct{ name, setting string }{
		{"refused", "InaccessiblePaths=/run/systemd/private"},
		{"no answer", "BindPaths=" + silent.Addr().String() + ":/run/systemd/private"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dropIn(t, test.setting)
			_, cursor, _ := strings.Cut(command(t, "journalctl", "-n", "0", "--show-cursor"), "-- cursor: ")
			first := install(t)
			for _, w := range first.Workers {
				want := "/system.slice/" + service + "/" + w.ID + "." + w.Token
				if got := cgroupOf(t, w.PID); got != want {
					t.Errorf("%s is in %s, want %s", w.ID, got, want)
				}
			}
			journal := command(t, "journalctl", "--no-pager", "--after-cursor="+strings.TrimSpace(cursor), "-o", "cat",
				"-u", service)
			if n := strings.Count(journal, "workers start in the service"); n != 1 {
				t.Errorf("%d warnings, want 1:\n%s", n, journal)
			}
			wantNoScope(t)

			dropIn(t, "")
			command(t, "systemctl", "daemon-reload")
			command(t, "systemctl", "kill", "--kill-whom=main", "-s", "KILL", service)
			second := ready(t, first.MasterPID)
			wantSame(t, "kill", first, second)
			third := replaced(t, second, 1)
			want := "/hsu.slice/" + scopeOf(t) + "/"
			if got := cgroupOf(t, third.Workers[1].PID); !strings.HasPrefix(got, want) {
				t.Errorf("a new worker is in %s, want it in %s", got, want)
			}
			if third.Workers[0].PID != first.Workers[0].PID {
				t.Errorf("worker-0 is process %d, want %d", third.Workers[0].PID, first.Workers[0].PID)
			}
			command(t, "systemctl", "stop", socket, service)
			if left := ours(t); len(left) > 0 {
				t.Errorf("processes left: %v", left)
			}
			wantNoScope(t)
		})
	}
}

// Two masters of a host have scopes of their own.
func TestScopesOfTwoMasters(t *testing.T) {
	first := install(t)
	const other = "hsu-other.service"
	unit := "/run/systemd/system/" + other
	content := "[Service]\nType=notify\nKillMode=process\nStateDirectory=hsu-other\nRuntimeDirectory=hsu-other\n" +
		"ExecStart=" + master + " run --port 20061 --worker-path " + worker + " --worker-count 1\n"
	if err := os.WriteFile(unit, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("systemctl", "stop", other).Run()
		_ = os.Remove(unit)
		_ = os.RemoveAll("/var/lib/hsu-other")
		_ = exec.Command("systemctl", "daemon-reload").Run()
	})
	command(t, "systemctl", "daemon-reload")
	command(t, "systemctl", "start", other)
	folders, err := filepath.Glob(hsuSlice + "/*.scope")
	if err != nil || len(folders) != 2 {
		t.Fatalf("the scopes are %v, %v", folders, err)
	}
	name := strings.TrimSpace(readFile(t, "/var/lib/hsu-other/master-id"))
	before := command(t, "systemctl", "show", "--value", "-p", "Before", "hsu-workers-"+name+".scope")
	if !strings.Contains(before, other) {
		t.Errorf("the scope is before %s, want %s", before, other)
	}
	// A stop of the one leaves the other.
	command(t, "systemctl", "stop", other)
	wantSame(t, "the stop of another master", first, ready(t, 0))
	wantInScope(t, first)
}

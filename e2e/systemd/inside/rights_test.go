//go:build inside

package inside

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// addUser creates a user for the service, until the end of the test.
func addUser(t *testing.T) string {
	t.Helper()
	const name = "hsu"
	command(t, "useradd", "--system", "--no-create-home", name)
	t.Cleanup(func() {
		if output, err := exec.Command("userdel", name).CombinedOutput(); err != nil {
			t.Errorf("userdel: %v\n%s", err, output)
		}
	})
	return name
}

// crashAndAdopt kills the master three times; each time the next one must have the same workers.
func crashAndAdopt(t *testing.T, first state) state {
	t.Helper()
	last := first
	for range 3 {
		command(t, "systemctl", "kill", "--kill-whom=main", "-s", "KILL", service)
		last = ready(t, last.MasterPID)
		for i, w := range last.Workers {
			if w.PID != first.Workers[i].PID || w.Incarnation != 1 {
				t.Errorf("%s is process %d of incarnation %d, want %d of 1",
					w.ID, w.PID, w.Incarnation, first.Workers[i].PID)
			}
		}
	}
	return last
}

// Workers keep only the rights that a service needs, and are adopted nevertheless.
func TestWorkersWithoutRightsAreAdopted(t *testing.T) {
	for _, user := range []string{"root", addUser(t)} {
		t.Run(user, func(t *testing.T) {
			first := installProgram(t, master, "--user", user)
			uid := command(t, "id", "-u", user)
			for _, w := range first.Workers {
				wantNoRights(t, w.PID, uid)
			}
			wantNoRights(t, first.MasterPID, uid)
			last := crashAndAdopt(t, first)
			// A worker that died without a master is restarted, and the others stay.
			victim := last.Workers[0]
			if err := syscall.Kill(victim.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			waitFor(t, 30*time.Second, func() error {
				s, err := dump(t)
				if err != nil {
					return err
				}
				if w := s.Workers[0]; w.PID == victim.PID || w.Status != "running" {
					return fmt.Errorf("%+v", w)
				}
				return nil
			})
		})
	}
}

// The service was installed by a release that left it capabilities, its workers still have them, and the master
// crashes after the new unit was installed.
func TestWorkersWithMoreRightsThanTheMasterAreAdopted(t *testing.T) {
	dropIn(t, "CapabilityBoundingSet=CAP_SYS_PTRACE CAP_KILL CAP_SETUID CAP_SETGID CAP_DAC_READ_SEARCH")
	first := install(t)
	for _, w := range first.Workers {
		if status := processStatus(t, w.PID); !regexp.MustCompile(`(?m)^CapPrm:\t0*800e4$`).MatchString(status) {
			t.Fatalf("%s has not the rights of this test:\n%s", w.ID, status)
		}
	}
	if err := os.RemoveAll("/etc/systemd/system/hsu-master.service.d"); err != nil {
		t.Fatal(err)
	}
	command(t, "systemctl", "daemon-reload")
	last := crashAndAdopt(t, first)
	wantNoRights(t, last.MasterPID, "0")
	// The master can still end them: the clean-up of install counts the processes.
}

// A master could not stop another user's workers, so a service with another user is not installed over them.
func TestInstallForAnotherUserWantsAStopFirst(t *testing.T) {
	name := addUser(t)
	install(t)
	unit := readFile(t, "/etc/systemd/system/"+service)
	args := []string{"systemd", "install", "--worker-path", worker, "--worker-count", strconv.Itoa(workers)}
	other := slices.Concat(args, []string{"--user", name})
	output, err := exec.CommandContext(t.Context(), master, other...).CombinedOutput()
	for _, want := range []string{
		"belongs to user 0", "could not stop it", "systemctl stop " + socket + " " + service,
	} {
		if err == nil || !strings.Contains(string(output), want) {
			t.Fatalf("%v, want one with %q:\n%s", err, want, output)
		}
	}
	if now := readFile(t, "/etc/systemd/system/"+service); now != unit {
		t.Errorf("the unit was changed all the same:\n%s", now)
	}
	// Other settings for the same user do not require a stop, but apply from its next start.
	changed := slices.Concat(args, []string{"--stop-grace", "20s"})
	if output := command(t, master, changed...); !strings.Contains(output, "until systemctl restart "+service) {
		t.Errorf("a changed unit of a running service: %s", output)
	}
	if output := command(t, master, changed...); strings.Contains(output, "restart") {
		t.Errorf("the same unit of a running service: %s", output)
	}
	command(t, "systemctl", "stop", socket, service)
	command(t, master, slices.Concat(other, []string{"--enable"})...)
	uid := command(t, "id", "-u", name)
	for _, w := range ready(t, 0).Workers {
		wantNoRights(t, w.PID, uid)
	}
}

// Workers that survive in the scope while no master runs are seen too.
func TestInstallForAnotherUserSeesSurvivors(t *testing.T) {
	name := addUser(t)
	dropIn(t, "Restart=no")
	first := install(t)
	command(t, "systemctl", "kill", "-s", "KILL", service)
	waitFor(t, 10*time.Second, func() error {
		if got := property(t, "ActiveState"); got != "failed" {
			return fmt.Errorf("the service is %s", got)
		}
		return nil
	})
	other := []string{
		"systemd", "install", "--worker-path", worker, "--worker-count", strconv.Itoa(workers), "--user", name,
	}
	output, err := exec.CommandContext(t.Context(), master, other...).CombinedOutput()
	if err == nil || !strings.Contains(string(output), "belongs to user 0") {
		t.Fatalf("%v, want a refusal:\n%s", err, output)
	}
	// The advice of the message.
	command(t, "systemctl", "start", service)
	second := ready(t, first.MasterPID)
	wantSame(t, "the start", first, second)
	command(t, "systemctl", "stop", socket, service)
	command(t, master, append(other, "--enable")...)
	ready(t, second.MasterPID)
}

// shell is a worker that first attempts the attacks that a shell in a worker could. It must not change the machine
// if it succeeds.
const shell = `#!/bin/bash
can() { if "${@:2}" >/dev/null 2>&1; then echo "can $1"; fi; }
root=$(pgrep -x systemd-journal) other=$(pgrep -x dbus-daemon)
can "find none of the processes that it tries to reach" test -z "$root" -o -z "$other"
can "signal a process of another user" kill -0 "$other"
can "read the environment of another service" cat "/proc/$root/environ"
can "read the environment of another user's process" cat "/proc/$other/environ"
can "change its user" setpriv --reuid=65533 --regid=65533 --clear-groups true
can "read what root reads by its rights" cat /srv/secret
can "read the home folder of root" ls /root
can "freeze another service" sh -c 'echo 0 >/sys/fs/cgroup/system.slice/systemd-journald.service/cgroup.freeze'
can "write the unit" touch -c /etc/systemd/system/hsu-master.service
can "write a program" touch -c /usr/local/bin/hsu-worker
can "write the state of others" touch -c /var/lib/systemd
can "make a user namespace" unshare --user true
[ "$(id -u)" = 0 ] || can "read what is for root only" cat /etc/shadow
echo "has tried"
exec /usr/local/bin/hsu-worker "$@"
`

func TestWhatAShellInAWorkerCannotDo(t *testing.T) {
	const program = "/usr/local/bin/shell-worker"
	if err := os.WriteFile(program, []byte(shell), 0o755); err != nil {
		t.Fatal(err)
	}
	// Only the file's owner, and processes with CAP_DAC_READ_SEARCH, may read this.
	if err := os.WriteFile("/srv/secret", []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown("/srv/secret", 65533, 65533); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"root", addUser(t)} {
		t.Run(user, func(t *testing.T) {
			first := installProgram(t, master, "--user", user, "--worker-path", program)
			for _, w := range first.Workers {
				log := readFile(t, "/var/lib/hsu-master/logs/"+w.ID+".log")
				if !strings.Contains(log, "has tried\n") {
					t.Errorf("%s has tried nothing:\n%s", w.ID, log)
				}
				for _, line := range regexp.MustCompile(`(?m)^can .*`).FindAllString(log, -1) {
					t.Errorf("%s %s", w.ID, line)
				}
			}
		})
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func processStatus(t *testing.T, pid int) string {
	t.Helper()
	return readFile(t, fmt.Sprintf("/proc/%d/status", pid))
}

// wantNoRights fails if a process has any capability.
func wantNoRights(t *testing.T, pid int, uid string) {
	t.Helper()
	status := processStatus(t, pid)
	for _, line := range []string{
		`Uid:\t` + strings.Repeat(uid+`\t`, 3) + uid,
		`NoNewPrivs:\t1`, `CapInh:\t0+`, `CapPrm:\t0+`, `CapEff:\t0+`, `CapBnd:\t0+`, `CapAmb:\t0+`,
	} {
		if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(status) {
			t.Errorf("process %d has not %q:\n%s", pid, line, status)
		}
	}
}

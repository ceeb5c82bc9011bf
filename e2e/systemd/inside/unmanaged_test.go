//go:build inside

package inside

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const watchedUnits = `
listen: 127.0.0.1:50061
defaults: {kind: unmanaged, health: {interval: 200ms}}
units:
  db: {discover: {systemd: e2e-db@1}}
  once: {discover: {systemd: e2e-once.service}}
  none: {discover: {systemd: e2e-none}}
`

// serviceUnits writes units of systemd for a test.
func serviceUnits(t *testing.T, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := "/etc/systemd/system/" + name
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(path) })
	}
	command(t, "systemctl", "daemon-reload")
}

// A service of systemd is found by its name, by root over the manager's own socket and by others over the system bus.
// It stays found over a crash of the master and while systemd is executed again, and its restart is noticed.
func TestUnmanagedServiceOfSystemd(t *testing.T) {
	serviceUnits(t, map[string]string{
		"e2e-db@.service":  "[Service]\nExecStart=/bin/sleep infinity\n",
		"e2e-once.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
	})
	for _, user := range []string{"root", addUser(t)} {
		t.Run(user, func(t *testing.T) {
			command(t, "systemctl", "start", "e2e-db@1", "e2e-once")
			t.Cleanup(func() {
				stop := exec.Command("systemctl", "stop", "e2e-db@1", "e2e-once")
				if output, err := stop.CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, output)
				}
			})
			two := namedMaster(t, "two")
			two.write(t, watchedUnits)
			two.install(t, "--user", user)
			want := map[string]string{"db-0": "running", "once-0": "absent", "none-0": "absent"}
			mainPID := func() int {
				pid, err := strconv.Atoi(command(t, "systemctl", "show", "--value", "-p", "MainPID", "e2e-db@1"))
				if err != nil {
					t.Fatal(err)
				}
				return pid
			}
			first := two.await(t, 0, want)
			if first["db-0"] != mainPID() {
				t.Errorf("it has found process %d, want %d", first["db-0"], mainPID())
			}
			list := two.list(t)
			for _, reason := range []string{
				"once-0 is absent: e2e-once.service is active (exited) and has no main process",
				"none-0 is absent: systemd has no unit e2e-none.service",
			} {
				if !strings.Contains(list, reason) {
					t.Errorf("it does not say %q:\n%s", reason, list)
				}
			}

			command(t, "systemctl", "kill", "--kill-whom=main", "-s", "KILL", "two.service")
			crashed := two.await(t, first[""], want)
			if crashed["db-0"] != first["db-0"] {
				t.Errorf("after a crash it is process %d, want %d", crashed["db-0"], first["db-0"])
			}
			command(t, "systemctl", "daemon-reexec")
			for range 2 { // the first check may have begun before
				two.awaitCheck(t)
			}
			if pids := two.await(t, 0, want); pids["db-0"] != first["db-0"] {
				t.Errorf("after daemon-reexec it is process %d, want %d", pids["db-0"], first["db-0"])
			}
			if gone := two.count(t, "process gone"); gone != 0 {
				t.Errorf("the process was gone %d times", gone)
			}

			command(t, "systemctl", "restart", "e2e-db@1")
			waitFor(t, 30*time.Second, func() error {
				if pids := two.await(t, 0, want); pids["db-0"] != mainPID() || two.count(t, "process gone") != 1 {
					return fmt.Errorf("it watches process %d, not %d", pids["db-0"], mainPID())
				}
				return nil
			})
			restarted := mainPID()
			command(t, master, "systemd", "uninstall", "--name", "two")
			if err := syscall.Kill(restarted, 0); err != nil || mainPID() != restarted {
				t.Errorf("process %d of the service after the end of the master: %v", restarted, err)
			}
		})
	}
}

// awaitCheck waits for the next check of the first worker that has checks.
func (n named) awaitCheck(t *testing.T) {
	t.Helper()
	var before string
	waitFor(t, 30*time.Second, func() error {
		output := command(t, master, "--state-dir", n.state(), "state", "dump", "--json")
		at := regexp.MustCompile(`"answered_at": *"([^"]+)"`).FindStringSubmatch(output)
		switch {
		case at == nil:
			return fmt.Errorf("there is no check:\n%s", output)
		case before == "":
			before = at[1]
		}
		if at[1] == before {
			return fmt.Errorf("the last check was at %s", before)
		}
		return nil
	})
}

// list returns what "worker list" prints.
func (n named) list(t *testing.T) string {
	t.Helper()
	return command(t, master, "--state-dir", n.state(), "worker", "list")
}

// count returns how often a message is in the log of the master.
func (n named) count(t *testing.T, message string) int {
	t.Helper()
	since := command(t, "systemctl", "show", "--value", "-p", "InactiveExitTimestamp", n.name+".socket")
	log := command(t, "journalctl", "--no-pager", "-o", "cat", "--since", since, "-u", n.name)
	return strings.Count(log, message)
}

const allowedUnits = `
listen: 127.0.0.1:50061
defaults: {kind: unmanaged, health: {interval: 200ms}}
units:
  db: {discover: {systemd: e2e-db@1}, allow: [restart]}
  gone: {discover: {systemd: e2e-none}, allow: [restart]}
`

// systemd restarts a service that a unit allows to restart, if the master is root. Another user has no right to that,
// which the command says.
func TestUnmanagedServiceIsRestartedBySystemd(t *testing.T) {
	serviceUnits(t, map[string]string{"e2e-db@.service": "[Service]\nExecStart=/bin/sleep infinity\n"})
	for _, user := range []string{"root", addUser(t)} {
		t.Run(user, func(t *testing.T) {
			command(t, "systemctl", "start", "e2e-db@1")
			t.Cleanup(func() {
				if output, err := exec.Command("systemctl", "stop", "e2e-db@1").CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, output)
				}
			})
			two := namedMaster(t, "two")
			two.write(t, allowedUnits)
			two.install(t, "--user", user)
			want := map[string]string{"db-0": "running", "gone-0": "absent"}
			before := two.await(t, 0, want)
			ask := func(args ...string) (string, error) {
				output, err := exec.CommandContext(t.Context(), master,
					append([]string{"--state-dir", two.state(), "worker"}, args...)...).CombinedOutput()
				return string(output), err
			}
			if output, err := ask("stop", "db-0"); err == nil || !strings.Contains(output, "add stop to its allow") {
				t.Errorf("a stop: %v: %s", err, output)
			}
			if output, err := ask("restart", "gone-0"); err == nil || !strings.Contains(output, "e2e-none.service") {
				t.Errorf("a restart of a unit that systemd does not have: %v: %s", err, output)
			}
			output, err := ask("restart", "db-0")
			after := two.await(t, 0, want)
			if user != "root" {
				if err == nil || !strings.Contains(output, "restart e2e-db@1.service: ") ||
					after["db-0"] != before["db-0"] {
					t.Errorf("a restart as %s: %v: %s: processes %v, before %v", user, err, output, after, before)
				}
				return
			}
			if err != nil || after["db-0"] == before["db-0"] {
				t.Errorf("a restart: %v: %s: processes %v, before %v", err, output, after, before)
			}
			if pid := command(t, "systemctl", "show", "--value", "-p", "MainPID", "e2e-db@1"); pid !=
				strconv.Itoa(after["db-0"]) {
				t.Errorf("the process is %d, systemd has %s", after["db-0"], pid)
			}
			events := command(t, master, "--state-dir", two.state(), "events")
			if !strings.Contains(events, "restart") {
				t.Errorf("no event of the restart:\n%s", events)
			}
		})
	}
}

//go:build inside

package inside

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// named is a master with a name of its own, which runs a configuration file.
type named struct {
	name   string
	folder string // of the file
}

func (n named) file() string { return filepath.Join(n.folder, "hsu.yaml") }

func (n named) state() string { return "/var/lib/" + n.name }

// write writes the configuration file.
func (n named) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(n.file(), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// install installs and starts it, and returns what the command has printed. It is uninstalled at the end of the test.
func (n named) install(t *testing.T, flags ...string) string {
	t.Helper()
	t.Cleanup(func() {
		if output, err := exec.Command(master, "systemd", "uninstall", "--name", n.name).CombinedOutput(); err != nil {
			t.Errorf("uninstall: %v\n%s", err, output)
		}
		for _, dir := range []string{n.folder, n.state(), "/run/" + n.name} {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		}
	})
	args := []string{"systemd", "install", "--enable", "--name", n.name, "--config", n.file()}
	return command(t, master, append(args, flags...)...)
}

// namedMaster returns a master with a file that is not written yet.
func namedMaster(t *testing.T, name string) named {
	t.Helper()
	n := named{name: name, folder: "/etc/" + name}
	if err := os.MkdirAll(n.folder, 0o755); err != nil {
		t.Fatal(err)
	}
	return n
}

// await waits until a master other than the given one runs, whose workers have these statuses. It returns the PIDs of
// the workers, and that of the master as "".
func (n named) await(t *testing.T, other int, want map[string]string) map[string]int {
	t.Helper()
	var pids map[string]int
	waitFor(t, 60*time.Second, func() error {
		var s state
		var stderr bytes.Buffer
		cmd := exec.CommandContext(t.Context(), master, "--state-dir", n.state(), "state", "dump", "--json")
		cmd.Stderr = &stderr
		output, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("%w: %s", err, &stderr)
		}
		if err := json.Unmarshal(output, &s); err != nil {
			return err
		}
		if s.MasterPID == 0 || s.MasterPID == other || s.Status != "running" || len(s.Workers) != len(want) {
			return fmt.Errorf("state is %+v", s)
		}
		pids = map[string]int{"": s.MasterPID}
		for _, w := range s.Workers {
			if w.Status != want[w.ID] {
				return fmt.Errorf("%s is %s, want %s", w.ID, w.Status, want[w.ID])
			}
			pids[w.ID] = w.PID
		}
		return nil
	})
	return pids
}

const twoUnits = `
listen: 127.0.0.1:50061
units:
  web: {command: [/usr/local/bin/hsu-worker], user: hsu}
  data:
    kind: managed
    command: [/bin/sh, -c, "touch written; nice >>written; exec sleep infinity"]
    working_dir: /srv/two
    nice: -5
    stop: {grace: 3s}
  bus: {kind: unmanaged, discover: {process: {name: dbus-daemon}}}
`

// Two masters run side by side, each with its own units and folders. Neither a crash, a reload nor the removal of the
// one touches the other.
func TestTwoMastersOnOneHost(t *testing.T) {
	addUser(t)
	first := install(t)
	two := namedMaster(t, "two")
	two.write(t, twoUnits)
	if err := os.MkdirAll("/srv/two", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll("/srv/two") })
	output := two.install(t)
	for _, want := range []string{
		"workers can write to /var/lib/two /run/two /srv/two /tmp /var/tmp, and nowhere else",
		"workers of web cannot write to their working_dir: --writable /etc/two allows it",
		"more rights (CAP_KILL CAP_SETGID CAP_SETUID CAP_SYS_NICE CAP_SYS_PTRACE) for web: user, data: nice",
		"next: hsu-master --state-dir /var/lib/two status",
	} {
		if !strings.Contains(output, want) {
			t.Errorf("install has not printed %q:\n%s", want, output)
		}
	}
	want := map[string]string{"web-0": "running", "data-0": "running", "bus-0": "running"}
	began := two.await(t, 0, want)
	command(t, master, "--state-dir", two.state(), "status") // exits with 0
	if got := readFile(t, "/srv/two/written"); got != "-5\n" {
		t.Errorf("the worker has written %q", got)
	}
	if got := command(t, "systemctl", "show", "--value", "-p", "TimeoutStopUSec", "two.service"); got != "30s" {
		t.Errorf("TimeoutStopSec= is %s", got)
	}
	wantSame := func(when string) {
		t.Helper()
		if s := ready(t, 0); s.MasterPID != first.MasterPID || s.Workers[0].PID != first.Workers[0].PID {
			t.Errorf("%s the first master is process %d, want %d", when, s.MasterPID, first.MasterPID)
		}
	}
	wantSame("beside another")

	// The address of the first one is taken, and so is that of the second.
	for _, address := range []string{"50051", "50061"} {
		output, err := exec.CommandContext(t.Context(), master, "systemd", "install", "--name", "three",
			"--config", two.file(), "--port", address).CombinedOutput()
		if err == nil || !strings.Contains(string(output), "127.0.0.1:"+address+" is taken: /etc/systemd/system/") {
			t.Errorf("a second master at port %s: %v\n%s", address, err, output)
		}
	}

	command(t, "systemctl", "kill", "--kill-whom=main", "-s", "KILL", "two.service")
	crashed := two.await(t, began[""], want)
	for id := range want {
		if crashed[id] != began[id] {
			t.Errorf("%s is process %d after a crash, want %d", id, crashed[id], began[id])
		}
	}
	wantSame("after the crash of the other")

	two.write(t, strings.Replace(twoUnits, ":50061", ":50062", 1)+
		"  more: {kind: managed, command: [/bin/sleep, infinity], stop: {grace: 40s}}\n")
	command(t, "systemctl", "reload", "two")
	want["more-0"] = "running"
	two.await(t, 0, want)
	journal := command(t, "journalctl", "--no-pager", "-o", "cat", "-u", "two")
	if !strings.Contains(journal, `listen: takes effect at the next start of the master, or under systemd after`) {
		t.Errorf("the reload has not said that the listener stays:\n%s", journal)
	}
	// Installing again moves the listener with the restart that it names.
	output = command(t, master, "systemd", "install", "--name", "two", "--config", two.file())
	const restart = "systemctl restart two.service two.socket"
	for _, want := range []string{
		"- ListenStream=127.0.0.1:50061\n  + ListenStream=127.0.0.1:50062",
		"- TimeoutStopSec=30s\n  + TimeoutStopSec=60s", restart,
	} {
		if !strings.Contains(output, want) {
			t.Errorf("install has not printed %q:\n%s", want, output)
		}
	}
	command(t, "systemctl", strings.Fields(restart)[1:]...)
	two.await(t, crashed[""], want)
	if got := command(t, master, "--state-dir", two.state(), "status"); !strings.Contains(got, "on 127.0.0.1:50062 ") {
		t.Errorf("its status is\n%s", got)
	}

	command(t, master, "systemd", "uninstall", "--name", "two")
	for _, unit := range []string{"two.service", "two.socket"} {
		if _, err := os.Stat("/etc/systemd/system/" + unit); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there (%v)", unit, err)
		}
	}
	if left := ours(t); len(left) != workers {
		t.Errorf("%d processes are left, want the %d of the first master", len(left), workers)
	}
	wantSame("after the other is uninstalled")
}

// The file is checked as the user of the service, who cannot read it here, and with the variables of the service.
func TestInstallChecksTheFileAsTheService(t *testing.T) {
	user := addUser(t)
	two := namedMaster(t, "two")
	two.write(t, "listen: 127.0.0.1:50061\nunits:\n  a: {kind: managed, command: [/bin/sleep, infinity], "+
		"environment: {A: \"${FROM_DEFAULT}\"}}\n")
	try := func(flags ...string) (string, error) {
		args := []string{"systemd", "install", "--name", two.name, "--config", two.file()}
		output, err := exec.CommandContext(t.Context(), master, append(args, flags...)...).CombinedOutput()
		if _, unit := os.Stat("/etc/systemd/system/two.service"); err != nil && unit == nil {
			t.Errorf("%q: a unit is installed", flags)
		}
		return string(output), err
	}
	if output, err := try(); err == nil || !strings.Contains(output, "FROM_DEFAULT") {
		t.Errorf("a variable that the service does not have: %v\n%s", err, output)
	}
	if err := os.WriteFile("/etc/default/two", []byte("FROM_DEFAULT=1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove("/etc/default/two") })
	if err := os.Chmod(two.file(), 0o600); err != nil {
		t.Fatal(err)
	}
	if output, err := try("--user", user); err == nil ||
		!strings.Contains(output, "user hsu cannot run /etc/two/hsu.yaml") ||
		!strings.Contains(output, "permission denied") {
		t.Errorf("a file that the user cannot read: %v\n%s", err, output)
	}
	if err := os.Chmod(two.file(), 0o644); err != nil {
		t.Fatal(err)
	}
	output := two.install(t, "--user", user)
	if !strings.Contains(output, "systemctl kill --kill-whom=main two.service") {
		t.Errorf("it does not say how to kill the master only:\n%s", output)
	}
	two.await(t, 0, map[string]string{"a-0": "running"})
}

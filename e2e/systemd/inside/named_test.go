//go:build inside

package inside

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
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

// install installs and starts it, and returns the output of the command. It is uninstalled at the end of the test.
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

// The ports of further masters are below those from which the kernel takes the ports of clients: a connection of the
// last minute would keep systemd from listening on its port.
const twoUnits = `
listen: 127.0.0.1:20061
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
	for _, address := range []string{"50051", "20061"} {
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

	two.write(t, strings.Replace(twoUnits, ":20061", ":20062", 1)+
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
		"- ListenStream=127.0.0.1:20061\n  + ListenStream=127.0.0.1:20062",
		"- TimeoutStopSec=30s\n  + TimeoutStopSec=60s", restart,
	} {
		if !strings.Contains(output, want) {
			t.Errorf("install has not printed %q:\n%s", want, output)
		}
	}
	command(t, "systemctl", strings.Fields(restart)[1:]...)
	two.await(t, crashed[""], want)
	if got := command(t, master, "--state-dir", two.state(), "status"); !strings.Contains(got, "on 127.0.0.1:20062 ") {
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
	two.write(t, "listen: 127.0.0.1:20061\nunits:\n  a: {kind: managed, command: [/bin/sleep, infinity], "+
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

// module is a worker that publishes its port at a module registry, says that it is ready, and that it lives.
const module = `use Socket;
my ($registry, $name) = @ARGV;
socket(my $tcp, PF_INET, SOCK_STREAM, 0) or die $!;
bind($tcp, sockaddr_in(0, INADDR_LOOPBACK)) or die $!;
listen($tcp, 5) or die $!;
my ($port) = sockaddr_in(getsockname($tcp));
my $body = qq({"moduleID":"$name","processID":$$,"apis":[{"serviceIDs":["x"],"serverPort":$port,"protocol":"http"}]});
socket(my $http, PF_UNIX, SOCK_STREAM, 0) or die $!;
connect($http, sockaddr_un($registry)) or die "$registry: $!";
syswrite($http, "POST /api/v1/publish HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " . length($body) .
	"\r\n\r\n$body");
my $answer = join("", <$http>);
$answer =~ /"success":true/ or die $answer;
sub notify {
	socket(my $s, PF_UNIX, SOCK_DGRAM, 0) or die $!;
	send($s, $_[0], 0, sockaddr_un($ENV{NOTIFY_SOCKET})) or warn "notify $_[0]: $!";
}
notify("READY=1");
while (1) { notify("WATCHDOG=1\nSTATUS=beat " . ++$beat); select(undef, undef, undef, 0.2); }
`

// modules is a configuration file: the port, and the name of the master twice.
const modules = `
listen: 127.0.0.1:%d
registry: unix:///tmp/hsu-registry-%s.sock
units:
  module:
    kind: managed
    command: [/usr/bin/perl, /srv/pair/module, "/tmp/hsu-registry-%[2]s.sock", "%[2]s"]
    user: hsu
    port: announced
    services: []
    readiness: {type: notify}
    liveness: {type: notify, interval: 1s}
    limits: {memory: 100MiB, pids: 50}
`

// discover asks the module registry of a master for the port of its module.
func (n named) discover(t *testing.T) (port int) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", "/tmp/hsu-registry-"+n.name+".sock")
		},
	}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/api/v1/discover/"+n.name, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var found struct{ APIs []struct{ ServerPort int } }
	if err := json.NewDecoder(response.Body).Decode(&found); err != nil || len(found.APIs) != 1 {
		t.Fatalf("%s: %+v, %v", response.Status, found, err)
	}
	return found.APIs[0].ServerPort
}

// beat returns the number that the worker has sent last as its status.
func (n named) beat(t *testing.T) (last int) {
	t.Helper()
	list := command(t, master, "--state-dir", n.state(), "worker", "list")
	if found := regexp.MustCompile(`beat (\d+)`).FindStringSubmatch(list); found != nil {
		last, _ = strconv.Atoi(found[1])
	}
	return last
}

// Two masters with workers of another user, which have notify sockets and publish their ports. The installed units have
// the rights for that. A worker reaches its socket also after the crash of its master, and with it no worker of the
// other changes.
func TestTwoMastersWithNotifyAndRegistry(t *testing.T) {
	addUser(t)
	if err := os.MkdirAll("/srv/pair", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll("/srv/pair") })
	if err := os.WriteFile("/srv/pair/module", []byte(module), 0o644); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"module-0": "running"}
	masters, began := []named{namedMaster(t, "one"), namedMaster(t, "two")}, map[string]map[string]int{}
	ports := map[string]int{}
	text := func(i int) string { return fmt.Sprintf(modules, 20061+i, masters[i].name) }
	for i, n := range masters {
		t.Cleanup(func() { _ = os.Remove("/tmp/hsu-registry-" + n.name + ".sock") })
		n.write(t, text(i))
		n.install(t)
		began[n.name] = n.await(t, 0, want)
		ports[n.name] = n.discover(t)
		if got := cgroupOf(t, began[n.name]["module-0"]); !strings.HasPrefix(got, "/hsu.slice/hsu-workers-") {
			t.Errorf("the worker of %s is in %s", n.name, got)
		}
	}
	one, two := masters[0], masters[1]
	command(t, "systemctl", "kill", "-s", "KILL", "one.service")
	crashed := one.await(t, began["one"][""], want)
	from := one.beat(t)
	waitFor(t, 30*time.Second, func() error { // longer than liveness allows without one
		if now := one.beat(t); now < from+15 {
			return fmt.Errorf("beat %d, want %d", now, from+15)
		}
		return nil
	})
	if now := one.await(t, 0, want); now["module-0"] != began["one"]["module-0"] {
		t.Errorf("after the crash the worker is process %d, want %d", now["module-0"], began["one"]["module-0"])
	}
	if port := one.discover(t); port != ports["one"] {
		t.Errorf("after the crash the module is found at port %d, want %d", port, ports["one"])
	}

	one.write(t, strings.Replace(text(0), "pids: 50", "pids: 60", 1)+"    environment: {A: b}\n")
	command(t, "systemctl", "reload", "one") // the variable replaces the worker
	reloaded := one.await(t, 0, want)
	if reloaded[""] != crashed[""] || reloaded["module-0"] == crashed["module-0"] {
		t.Errorf("after the reload: %v, before: %v", reloaded, crashed)
	}
	one.discover(t)
	if now := two.await(t, 0, want); !maps.Equal(now, began["two"]) {
		t.Errorf("the other master and its worker are %v, want %v", now, began["two"])
	}
	if port := two.discover(t); port != ports["two"] {
		t.Errorf("the module of the other is found at port %d, want %d", port, ports["two"])
	}
	command(t, master, "systemd", "uninstall", "--name", "one")
	if now := two.await(t, 0, want); !maps.Equal(now, began["two"]) {
		t.Errorf("after the other is uninstalled: %v, want %v", now, began["two"])
	}
}

//go:build inside

package inside

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/core-tools/hsu-master/api/proto"
)

const (
	newer        = "/share/hsu-master-new" // the master of another version
	newerVersion = "v2.0.0"
)

// replaceMaster installs another program at the path of the master, as package managers do, until the end of the test.
func replaceMaster(t *testing.T, content []byte) {
	t.Helper()
	replace := func(content []byte) {
		err := errors.Join(os.WriteFile(master+".new", content, 0o755), os.Rename(master+".new", master))
		if err != nil {
			t.Fatal(err)
		}
	}
	former := []byte(readFile(t, master))
	t.Cleanup(func() { replace(former) })
	replace(content)
}

// upgradeTo upgrades the service to the program now at its path.
func upgradeTo(t *testing.T, version string, flags ...string) {
	t.Helper()
	var outcome struct {
		To  string `json:"to"`
		Cut int    `json:"calls_cut"`
	}
	output := command(t, master, append([]string{"upgrade", "--json"}, flags...)...)
	if err := json.Unmarshal([]byte(output), &outcome); err != nil || outcome.To != version || outcome.Cut != 0 {
		t.Errorf("the upgrade: %v, want version %s and no call cut:\n%s", err, version, output)
	}
}

// wantService waits until the service is active, and fails unless systemd has not restarted its main process since.
func wantService(t *testing.T, pid int) {
	t.Helper()
	waitFor(t, 10*time.Second, func() error {
		if got := property(t, "ActiveState") + " " + property(t, "StatusText"); !strings.HasPrefix(got, "active ") ||
			!strings.Contains(got, "ready") {
			return errors.New("the service is " + got)
		}
		return nil
	})
	if got := property(t, "MainPID") + " " + property(t, "NRestarts"); got != fmt.Sprint(pid, " 0") {
		t.Errorf("main PID and restarts are %s, want %d and none", got, pid)
	}
}

// A service is upgraded three times by replacing its program, with and without a user of its own: process, workers,
// listener and what systemd keeps stay. Afterwards it is a service as before: a crash, "down", "systemctl restart".
func TestServiceIsUpgradedInPlace(t *testing.T) {
	for _, user := range []string{"root", addUser(t)} {
		t.Run(user, func(t *testing.T) {
			dropIn(t, "MemoryDenyWriteExecute=yes\nWatchdogSec=10s")
			first := installProgram(t, master, "--user", user)
			former := []byte(readFile(t, master))
			version := strings.Fields(command(t, master, "version"))[1]
			wantKept(t, workers)
			output, err := exec.Command("cp", newer, master).CombinedOutput()
			if err == nil || !strings.Contains(string(output), "Text file busy") {
				t.Errorf("cp over the program of a running master: %v: %s", err, output)
			}
			l := startLoad(t)
			for range 3 {
				replaceMaster(t, []byte(readFile(t, newer)))
				upgradeTo(t, newerVersion)
				wantSame(t, "an upgrade", first, ready(t, 0))
				wantService(t, first.MasterPID)
				replaceMaster(t, former)
				upgradeTo(t, version)
				wantSame(t, "an upgrade back", first, ready(t, 0))
				wantService(t, first.MasterPID)
				wantKept(t, workers)
			}
			l.end()
			if l.refused.Load() != 0 || l.sent.Load()-l.acknowledged.Load() > 8 { // those that end interrupts
				t.Errorf("%d of %d connections refused; of %d calls %d acknowledged",
					l.refused.Load(), l.dials.Load(), l.sent.Load(), l.acknowledged.Load())
			}
			if user == "root" {
				wantInScope(t, ready(t, 0))
			}
			output, err = exec.Command(master, "down").CombinedOutput()
			if err == nil || !strings.Contains(string(output), `"systemctl stop hsu-master.service"`) {
				t.Errorf("down: %v\n%s", err, output)
			}
			command(t, "systemctl", "kill", "--kill-whom=main", "-s", "KILL", service)
			crashed := ready(t, first.MasterPID)
			wantSame(t, "a crash", first, crashed)
			wantKept(t, workers)
			command(t, "systemctl", "restart", service)
			if now := ready(t, crashed.MasterPID); now.ProcessedCount < l.acknowledged.Load() {
				t.Errorf("%d counted, %d acknowledged", now.ProcessedCount, l.acknowledged.Load())
			}
			if got := property(t, "Result"); got != "success" {
				t.Errorf("the service ended with %s", got)
			}
		})
	}
}

// checkedAs returns a program that passes its check as the one at path does, and then executes a command.
func checkedAs(path, command string) []byte {
	return fmt.Appendf(nil, "#!/bin/sh\ncase $1 in upgrade-check) exec %s \"$@\" ;; esac\nexec %s\n", path, command)
}

// hangs makes programs with crash points hang at a point until the returned function is called.
func hangs(t *testing.T, faults, point string) (goOn func()) {
	t.Helper()
	path := filepath.Join(faults, point)
	if err := os.WriteFile(path, []byte("hang"), 0o644); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// A drain that takes longer than the watchdog allows, upgrades one after the other, and a new program that never
// serves, which is replaced by the former one. The watchdog of systemd must not act.
func TestWatchdogDoesNotActInAnUpgrade(t *testing.T) {
	faults := t.TempDir()
	dropIn(t, "WatchdogSec=10s\nEnvironment=HSU_FAULT_DIR="+faults)
	first := install(t)
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// The worker has the headers of this call, and waits for the request.
	call, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true},
		"/proto.MyBusinessService/ProcessData", grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	// The master answers the calls of a connection when it has read the earlier ones.
	_, err = proto.NewMyBusinessServiceClient(conn).ProcessData(t.Context(), &proto.ProcessRequest{Data: "x"})
	if err != nil {
		t.Fatal(err)
	}
	replaceMaster(t, []byte(readFile(t, newer)))
	const drain = 14 * time.Second
	answer := make(chan error)
	go func() {
		time.Sleep(drain) // the duration of the call is the case
		resp := &proto.ProcessResponse{}
		answer <- errors.Join(call.SendMsg(&proto.ProcessRequest{Data: "late"}), call.CloseSend(), call.RecvMsg(resp))
	}()
	began := time.Now()
	upgradeTo(t, newerVersion)
	if took := time.Since(began); took < drain-time.Second {
		t.Errorf("the upgrade took %s, and has not waited for the call", took)
	}
	if err := <-answer; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	wantSame(t, "the drain", first, ready(t, 0))
	wantService(t, first.MasterPID)

	// No program runs long enough for a keep-alive of its own.
	for began := time.Now(); time.Since(began) < 12*time.Second; {
		upgradeTo(t, newerVersion)
	}
	wantSame(t, "upgrades", first, ready(t, 0))
	wantService(t, first.MasterPID)

	replaceMaster(t, checkedAs(newer, crasher+` "$@"`))
	goOn := hangs(t, faults, "lock") // at which no part that feeds the watchdog runs
	output, err := exec.Command(newer, "upgrade").CombinedOutput()
	if err == nil || !strings.Contains(string(output), "it did not serve within 1m0s") {
		t.Errorf("a program that never serves: %v\n%s", err, output)
	}
	goOn()
	wantSame(t, "the fall back", first, ready(t, 0))
	wantService(t, first.MasterPID)
	wantKept(t, workers)
}

// A new program that fails is replaced by the former one, and systemd sees one service all the time.
func TestServiceWithABrokenProgram(t *testing.T) {
	first := install(t)
	for text, message := range map[string]string{
		"#!/bin/sh\nexit 7\n": "exited with code 7",
		string(checkedAs(newer, newer+` "$@" --request-ttl 1ms`)): "it ended with exit code 2",
	} {
		replaceMaster(t, []byte(text))
		// The program for the command must be a good one.
		output, err := exec.Command(newer, "upgrade").CombinedOutput()
		if err == nil || !strings.Contains(string(output), message) {
			t.Errorf("want %q: %v\n%s", message, err, output)
		}
		wantService(t, first.MasterPID)
	}
	command(t, newer, "upgrade", "--binary", newer)
	wantService(t, first.MasterPID)
	replaceMaster(t, []byte(readFile(t, newer)))
	wantSame(t, "failed upgrades", first, ready(t, 0))
	wantKept(t, workers)
}

// The new program knows the messages of a worker, and the exit of another, from the time of its replacement.
func TestUpgradeMissesNothing(t *testing.T) {
	for _, dir := range []string{"/etc/hsu-master", "/srv/notify", "/srv/notify/said", "/srv/faults"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
	}
	const text = `
defaults: {kind: managed, start: {timeout: 10m}}
units:
  shell: {command: [/bin/sh, /srv/notify/shell], readiness: {type: notify}, liveness: {type: process}}
  sleep: {command: [/bin/sleep, infinity]}
`
	if err := errors.Join(os.WriteFile("/srv/notify/shell", []byte(shellWorker), 0o644),
		os.WriteFile(configFile, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	dropIn(t, "ReadWritePaths=/srv/notify\nEnvironment=HSU_FAULT_DIR=/srv/faults")
	cleanUpService(t)
	command(t, crasher, "systemd", "install", "--enable", "--config", configFile)
	want := map[string]string{"shell-0": "starting", "sleep-0": "running"}
	_, crashed := awaitStatuses(t, 0, want)
	command(t, "systemctl", "kill", "--kill-whom=main", "-s", "KILL", service)
	first, pid := awaitStatuses(t, crashed, want) // now its workers are not children of the master
	wantKept(t, 3)

	goOn := hangs(t, "/srv/faults", "upgrade-exec")
	upgraded := make(chan error)
	go func() {
		output, err := exec.Command(master, "upgrade", "--binary", newer).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, output)
		}
		upgraded <- err
	}()
	waitFor(t, 30*time.Second, func() error {
		if got := property(t, "ActiveState") + ", " + property(t, "StatusText"); got !=
			"reloading, executing the new program" {
			return errors.New("the service is " + got)
		}
		return nil
	})
	if err := errors.Join(os.WriteFile("/srv/notify/go", nil, 0o644),
		syscall.Kill(first["sleep-0"], syscall.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 10*time.Second, func() error {
		_, err := os.Stat("/srv/notify/said/shell")
		return err
	})
	goOn()
	if err := <-upgraded; err != nil {
		t.Fatal(err)
	}
	second, now := awaitStatuses(t, 0, map[string]string{"shell-0": "running", "sleep-0": "running"})
	if second["shell-0"] != first["shell-0"] || second["sleep-0"] == first["sleep-0"] || now != pid {
		t.Errorf("processes are %v of master %d, were %v of %d", second, now, first, pid)
	}
	s, err := dump(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range s.Workers {
		if w.ID == "sleep-0" && (w.LastExit == nil || !w.LastExit.Known || *w.LastExit.Signal != "SIGKILL") {
			t.Errorf("the last exit is %+v, want SIGKILL", w.LastExit)
		}
	}
	wantKept(t, 2)

	// A reload is one of the configuration, also after an upgrade.
	if err := os.WriteFile(configFile, []byte(text+"  more: {command: [/bin/sleep, infinity]}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, "systemctl", "reload", service)
	third, _ := awaitStatuses(t, 0, map[string]string{
		"shell-0": "running", "sleep-0": "running", "more-0": "running",
	})
	if third["shell-0"] != second["shell-0"] || property(t, "MainPID") != fmt.Sprint(pid) {
		t.Errorf("after the reload the processes are %v, were %v", third, second)
	}
	wantKept(t, 3)
	command(t, "systemctl", "stop", socket, service)
	if got := property(t, "Result"); got != "success" {
		t.Errorf("the service ended with %s", got)
	}
}

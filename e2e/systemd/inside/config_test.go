//go:build inside

package inside

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const configFile = "/etc/hsu-master/hsu-master.yaml"

// units is a file with a chain of dependencies, in which one unit has a user of its own. Its longest chain of graces
// is db, app and front: 7 + 2*8 + 9 seconds.
const units = `
units:
  db:
    kind: managed
    command: [/bin/sleep, infinity]
    stop: {grace: 7s, command: [/bin/sh, -c, "echo stop {worker} >>/srv/order/acts"]}
  app:
    kind: managed
    command: [/usr/local/bin/order-app, "{worker}"]
    user: hsu
    umask: "0027"
    limits: {open_files: 512}
    depends_on: {db: ready}
    start: {settle: 100ms, before: [/bin/sh, -c, "echo before {worker} as $(id -un) >>/srv/order/acts"]}
    stop: {grace: 8s, after: [/bin/sh, -c, "echo after {worker} as $(id -un) >>/srv/order/acts"]}
  front:
    kind: managed
    command: [/bin/sleep, infinity]
    depends_on: {app: started}
    stop: {grace: 9s, command: [/bin/sh, -c, "echo stop {worker} >>/srv/order/acts"]}
  nightly:
    kind: managed
    command: [/bin/true]
    schedule: "0 3 * * *"
`

// app is the program of the unit app. Only SIGTERM makes it write its last line.
const app = `#!/bin/sh
trap 'echo "term $1" >>/srv/order/acts; exit 0' TERM
echo "start $1" >>/srv/order/acts
sleep infinity & wait
`

// further is added to units by a reload. It cannot start before front is ready.
const further = `
  last:
    kind: managed
    command: [/bin/sleep, infinity]
    depends_on: {front: ready}
`

// documentedDropIn returns the settings of the drop-in that docs/CONFIGURATION.md gives for the key user.
func documentedDropIn(t *testing.T) string {
	t.Helper()
	block := regexp.MustCompile("(?s)```ini\n\\[Service\\]\n(.*?)```").FindStringSubmatch(
		readFile(t, "/share/CONFIGURATION.md"))
	if block == nil {
		t.Fatal("docs/CONFIGURATION.md shows no drop-in")
	}
	return block[1]
}

// awaitStatuses waits until the workers have these statuses and returns the PIDs.
func awaitStatuses(t *testing.T, other int, want map[string]string) (pids map[string]int, masterPID int) {
	t.Helper()
	waitFor(t, 60*time.Second, func() error {
		s, err := dump(t)
		if err != nil {
			return err
		}
		pids, masterPID = map[string]int{}, s.MasterPID
		if masterPID == 0 || masterPID == other || s.Status != "running" || len(s.Workers) != len(want) {
			return fmt.Errorf("state is %+v", s)
		}
		for _, w := range s.Workers {
			if w.Status != want[w.ID] {
				return fmt.Errorf("%s is %s, want %s", w.ID, w.Status, want[w.ID])
			}
			pids[w.ID] = w.PID
		}
		return nil
	})
	return pids, masterPID
}

// A service of root runs a configuration file with the documented drop-in: a unit with another user, dependencies,
// commands around workers and a schedule; over reloads and a crash.
func TestConfigurationFileAsAService(t *testing.T) {
	user := addUser(t)
	uid := command(t, "id", "-u", user)
	for _, dir := range []string{"/etc/hsu-master", "/srv/order"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
	}
	t.Cleanup(func() { _ = os.Remove("/usr/local/bin/order-app") })
	if err := errors.Join(os.WriteFile("/usr/local/bin/order-app", []byte(app), 0o755),
		os.WriteFile(configFile, []byte(units), 0o644),
		os.WriteFile("/srv/order/acts", nil, 0o666), os.Chmod("/srv/order/acts", 0o666)); err != nil {
		t.Fatal(err)
	}
	dropIn(t, documentedDropIn(t)+"ReadWritePaths=/srv/order")
	cleanUpService(t)
	command(t, master, "systemd", "install", "--enable", "--config", configFile)
	if got := property(t, "TimeoutStopUSec"); got != "52s" { // with 20 s more
		t.Errorf("TimeoutStopSec= is %s, want 52s", got)
	}

	want := map[string]string{
		"db-0": "running", "app-0": "running", "front-0": "running", "nightly-0": "scheduled",
	}
	first, masterPID := awaitStatuses(t, 0, want)
	command(t, master, "status") // exits with 0
	wantUser := func(pid int) {
		t.Helper()
		status := processStatus(t, pid)
		for _, line := range []string{
			fmt.Sprintf("Uid:\t%s\t%s\t%s\t%s", uid, uid, uid, uid), "Umask:\t0027", "CapPrm:\t0000000000000000",
		} {
			if !strings.Contains(status, line) {
				t.Errorf("process %d has not %q:\n%s", pid, line, status)
			}
		}
		if limits := readFile(t, fmt.Sprintf("/proc/%d/limits", pid)); !regexp.MustCompile(
			`Max open files +512 +512 `).MatchString(limits) {
			t.Errorf("process %d has not the limit of its unit:\n%s", pid, limits)
		}
	}
	wantUser(first["app-0"])

	// The two ways to reload keep all processes.
	if err := os.WriteFile(configFile, []byte(units+further), 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, "systemctl", "reload", service)
	more := map[string]string{"last-0": "running"}
	maps.Copy(more, want)
	second, _ := awaitStatuses(t, 0, more)
	if err := os.WriteFile(configFile, []byte(units), 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, "systemctl", "kill", "--kill-whom=main", "-s", "HUP", service)
	third, _ := awaitStatuses(t, 0, want)
	command(t, "systemctl", "kill", "--kill-whom=main", "-s", "KILL", service)
	fourth, _ := awaitStatuses(t, masterPID, want)
	for id, pid := range first {
		if second[id] != pid || third[id] != pid || fourth[id] != pid {
			t.Errorf("%s is process %d, after reloads %d and %d, after a crash %d",
				id, pid, second[id], third[id], fourth[id])
		}
	}

	command(t, "systemctl", "stop", socket, service)
	if got := property(t, "Result"); got != "success" {
		t.Errorf("the service ended with %s", got)
	}
	acts := strings.Fields(strings.ReplaceAll(readFile(t, "/srv/order/acts"), " ", "_"))
	wantActs := []string{
		"before_app-0_as_hsu", "start_app-0", "stop_front-0", "term_app-0", "after_app-0_as_hsu", "stop_db-0",
	}
	if !slices.Equal(acts, wantActs) {
		t.Errorf("acts are %q, want %q", acts, wantActs)
	}
}

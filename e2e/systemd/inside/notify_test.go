//go:build inside

package inside

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

const notifyUnits = `
defaults: {kind: managed, start: {timeout: 10m}, readiness: {type: notify}, liveness: {type: process}}
units:
  shell: {command: [/bin/sh, /srv/notify/shell]}
  perl: {command: [/usr/bin/perl, /srv/notify/perl], user: hsu}
`

// shellWorker sends READY=1 by another process. systemd-notify waits for 5 seconds until its message is handled, and
// its sender must live so long.
const shellWorker = `until test -e /srv/notify/go; do sleep 0.05; done
systemd-notify --ready --status="of shell" &
touch /srv/notify/said/shell
wait
exec sleep infinity
`

const perlWorker = `use Socket;
until (-e "/srv/notify/go") { select(undef, undef, undef, 0.05); }
socket(my $s, PF_UNIX, SOCK_DGRAM, 0) or die $!;
send($s, "READY=1\nSTATUS=of perl", 0, sockaddr_un($ENV{NOTIFY_SOCKET})) or die $!;
open(my $said, ">", "/srv/notify/said/perl") or die $!;
sleep(1000000);
`

// systemd keeps the notify sockets of starting workers, so that no READY=1 is lost.
func TestReadyThatIsSentWhileNoMasterRuns(t *testing.T) {
	addUser(t)
	for _, dir := range []string{"/etc/hsu-master", "/srv/notify", "/srv/notify/said"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
	}
	if err := errors.Join(os.Chmod("/srv/notify/said", 0o777), os.WriteFile(configFile, []byte(notifyUnits), 0o644),
		os.WriteFile("/srv/notify/shell", []byte(shellWorker), 0o644),
		os.WriteFile("/srv/notify/perl", []byte(perlWorker), 0o644)); err != nil {
		t.Fatal(err)
	}
	dropIn(t, documentedDropIn(t)+"ReadWritePaths=/srv/notify\nRestartSec=3s\n")
	cleanUpService(t)
	command(t, master, "systemd", "install", "--enable", "--config", configFile)
	first, masterPID := awaitStatuses(t, 0, map[string]string{"shell-0": "starting", "perl-0": "starting"})
	wantKept(t, 4) // a pidfd and a socket of each

	command(t, "systemctl", "kill", "--kill-whom=main", "-s", "KILL", service)
	waitFor(t, 10*time.Second, func() error {
		if pid := property(t, "MainPID"); pid != "0" {
			return fmt.Errorf("main PID %s", pid)
		}
		return nil
	})
	if err := os.WriteFile("/srv/notify/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 10*time.Second, func() error {
		_, err1 := os.Stat("/srv/notify/said/shell")
		_, err2 := os.Stat("/srv/notify/said/perl")
		return errors.Join(err1, err2)
	})
	if pid := property(t, "MainPID"); pid != "0" {
		t.Fatalf("a master runs already, as %s: the test was too slow", pid)
	}
	second, _ := awaitStatuses(t, masterPID, map[string]string{"shell-0": "running", "perl-0": "running"})
	for id, pid := range first {
		if second[id] != pid {
			t.Errorf("%s is process %d, want %d", id, second[id], pid)
		}
	}
	list := command(t, master, "worker", "list")
	if !strings.Contains(list, "status of shell") || !strings.Contains(list, "status of perl") {
		t.Errorf("the status texts are not shown:\n%s", list)
	}
	wantKept(t, 2) // the workers are not starting any more

	command(t, "systemctl", "stop", socket, service)
	if got := property(t, "Result"); got != "success" {
		t.Errorf("the service ended with %s", got)
	}
}

// wantKept waits until systemd keeps that many descriptors of the service.
func wantKept(t *testing.T, n int) {
	t.Helper()
	waitFor(t, 10*time.Second, func() error {
		if got := property(t, "NFileDescriptorStore"); got != fmt.Sprint(n) {
			return fmt.Errorf("systemd keeps %s descriptors, want %d", got, n)
		}
		return nil
	})
}

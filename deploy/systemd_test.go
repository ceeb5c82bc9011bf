//go:build e2e_systemd

package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// inSystemd runs a script in a temporary systemd instance, with the files in /share, and returns its output. The
// returned folder has the files that the script left in /share.
func inSystemd(t *testing.T, script string, files map[string]string) (output, share string) {
	t.Helper()
	share = t.TempDir()
	files["test.sh"] = "set -eu\n" + script
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(share, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(share, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Otherwise the output is also about the root, if this is the first test that needs it.
	if output, err := exec.Command("../scripts/systemd-container", "--prepare").CombinedOutput(); err != nil {
		t.Fatalf("prepare: %v\n%s", err, output)
	}
	cmd := exec.Command("../scripts/systemd-container", "bash", "/share/test.sh")
	cmd.Env = append(os.Environ(), "SHARE="+share)
	var both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &both, &both
	if err := cmd.Run(); err != nil {
		t.Fatalf("in systemd: %v\n%s", err, both.String())
	}
	return both.String(), share
}

// units returns both units by name.
func units(t *testing.T, o Options) map[string]string {
	t.Helper()
	service, err := Service(o)
	if err != nil {
		t.Fatal(err)
	}
	socket, err := Socket(o)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{o.ServiceName(): service, o.SocketName(): socket}
}

const install = `
install -m 644 /share/hsu-master.service /share/hsu-master.socket /etc/systemd/system/
`

func TestSystemdFindsNoFaultInTheUnits(t *testing.T) {
	output, _ := inSystemd(t, install+`
mkdir -p /usr/local/bin
cp /bin/true /usr/local/bin/hsu-master
cd /etc/systemd/system
systemd-analyze verify --recursive-errors=yes hsu-master.service hsu-master.socket || true
`, units(t, Options{}))
	for line := range strings.Lines(output) {
		if strings.Contains(line, "Unknown key") && (strings.Contains(line, "'FileDescriptorStorePreserve'") ||
			strings.Contains(line, "'DelegateSubgroup'")) {
			continue // not known to systemd before 254, as comments in the unit say
		}
		t.Errorf("systemd-analyze verify: %s", line)
	}
}

// reporter replaces the master: as the main process of the service it records its arguments and sends READY.
const reporter = `#!/bin/bash
printf '%s\0' "$@" >"$REPORT/args"
exec systemd-notify --ready
`

func TestSystemdReadsArgumentsAndPathsBackUnchanged(t *testing.T) {
	const folder = `share/my "own" folder, 5% $HOME \t`
	args := []string{
		"run", "--plain=1", "", "a b", "  ", `"`, "'", `\`, `\n`, `\\;`, ";", `\;`, "#", "%n", "%%", "100%",
		"$HOME", "${HOME}", "$$", "$", "-", "@", "!x", "|", "a\tb", "\x1b[0m", "größe", "`id`", "*", "~", "&&",
	}
	o := Options{
		ExecStart:      append([]string{"/share/the $program %n/report"}, args...),
		ReadWritePaths: []string{"/" + folder},
	}
	files := units(t, o)
	files["the $program %n/report"] = reporter
	files[strings.TrimPrefix(folder, "share/")+"/here"] = ""
	files["report.conf"] = "[Service]\nRestart=no\nEnvironment='REPORT=/" +
		strings.NewReplacer(`\`, `\\`, `%`, `%%`).Replace(folder) + "'\n"
	_, share := inSystemd(t, install+`
mkdir -p /etc/systemd/system/hsu-master.service.d
cp /share/report.conf /etc/systemd/system/hsu-master.service.d/
systemctl daemon-reload
systemctl start hsu-master.service || { journalctl --no-pager -u hsu-master.service; exit 1; }
`, files)
	report, err := os.ReadFile(filepath.Join(share, strings.TrimPrefix(folder, "share/"), "args"))
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(report), "\x00"), "\x00")
	if diff := cmp.Diff(args, got); diff != "" {
		t.Errorf("arguments that arrived differ (-given +arrived):\n%s", diff)
	}
}

// prober runs as the master with all of the service's hardening. It prints each operation that a master or its
// workers need and that is denied.
const prober = `#!/bin/bash
try() { "${@:2}" 2>&1 || echo "cannot $1"; } >>/share/out/findings
cgroup=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
stranger=$(pgrep -x dbus-daemon)
into_cgroup() {
	mkdir "$cgroup/probe" || return
	sleep 60 &
	echo $! >"$cgroup/probe/cgroup.procs" && echo 1 >"$cgroup/probe/cgroup.kill"
	wait
	until rmdir "$cgroup/probe" 2>/dev/null; do :; done
}
try "write the state folder" touch "$STATE_DIRECTORY/x"
try "write the runtime folder" touch "$RUNTIME_DIRECTORY/x"
try "write /tmp" touch /tmp/x
try "write /var/tmp" touch /var/tmp/x
try "see /proc of others" test -r "/proc/$stranger/stat"
try "read the boot id" cat /proc/sys/kernel/random/boot_id
try "read the sockets" cat /proc/net/tcp /proc/net/tcp6
for dir in /opt /usr/local/bin /srv; do
	try "run a program in $dir" "$dir/worker"
done
sleep 60 &
own=$!
try "read the environment of an own process" cat "/proc/$own/environ"
try "list the descriptors of an own process" ls "/proc/$own/fd"
try "end an own process" kill "$own"
refused() { if "${@:2}" >/dev/null 2>&1; then echo "can $1" >>/share/out/findings; fi; }
refused "change the user" setpriv --reuid=65534 --regid=65534 --clear-groups true
refused "make a user namespace" unshare --user true
refused "read what only root reads by its rights" cat /home/someone/secret
refused "run a program in a home folder" /home/someone/worker
refused "read the home folder of root" ls /root
refused "freeze another service" sh -c 'echo 0 >/sys/fs/cgroup/system.slice/dbus.service/cgroup.freeze'
refused "give a file away" chown 65534 "$STATE_DIRECTORY/x"
for set in CapPrm CapEff CapBnd CapAmb; do
	grep -q "^$set:[[:space:]]*0*$" /proc/self/status || echo "the set $set is not empty" >>/share/out/findings
done
try "start something in a cgroup of its own" into_cgroup
[ "$(stat -c %a "$STATE_DIRECTORY")" = 700 ] || echo "the state folder is not private" >>/share/out/findings
[ "$LISTEN_FDS/$LISTEN_FDNAMES" = 1/grpc ] ||
	echo "LISTEN_FDS=$LISTEN_FDS LISTEN_FDNAMES=$LISTEN_FDNAMES" >>/share/out/findings
for dir in /usr /etc /srv; do
	if touch "$dir/x" 2>/dev/null; then echo "can write $dir" >>/share/out/findings; fi
done
exec systemd-notify --ready
`

func TestHardeningLeavesTheMasterAndItsWorkersWhatTheyNeed(t *testing.T) {
	files := units(t, Options{ExecStart: []string{"/share/probe"}, ReadWritePaths: []string{"/share/out"}})
	files["probe"] = prober
	files["out/findings"] = ""
	files["once.conf"] = "[Service]\nRestart=no\n"
	_, share := inSystemd(t, install+`
mkdir -p /etc/systemd/system/hsu-master.service.d
cp /share/once.conf /etc/systemd/system/hsu-master.service.d/
useradd --create-home someone
chmod 755 /home/someone
install -m 600 -o someone /dev/null /home/someone/secret
for dir in /opt /usr/local/bin /srv /home/someone; do cp /bin/true "$dir/worker"; done
systemctl daemon-reload
systemctl start hsu-master.service || { journalctl --no-pager -u hsu-master.service; exit 1; }
`, files)
	findings, err := os.ReadFile(filepath.Join(share, "out/findings"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(findings)) {
		if strings.HasPrefix(line, "cannot ") || strings.HasPrefix(line, "can ") || strings.HasPrefix(line, "the ") ||
			strings.HasPrefix(line, "LISTEN") {
			t.Errorf("under the service's hardening: %s", line)
		}
	}
	if t.Failed() {
		t.Logf("all that was printed:\n%s", findings)
	}
}

func TestExposureOfTheService(t *testing.T) {
	for _, test := range []struct {
		user string
		most string // in tenths, as in the threshold of systemd-analyze
	}{{"root", "20"}, {"hsu", "17"}} {
		t.Run(test.user, func(t *testing.T) {
			output, _ := inSystemd(t, install+`
systemd-analyze security --no-pager --offline=true --threshold=`+test.most+` /etc/systemd/system/hsu-master.service ||
	echo "TOO EXPOSED"
`, units(t, Options{User: test.user}))
			if strings.Contains(output, "TOO EXPOSED") || !strings.Contains(output, "Overall exposure level") {
				t.Errorf("as %s:\n%s", test.user, output)
			}
		})
	}
}

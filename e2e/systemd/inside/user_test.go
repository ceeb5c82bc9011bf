//go:build inside

package inside

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// userManager is the systemd of an ordinary user.
type userManager struct {
	t    *testing.T
	uid  int
	home string
}

const userUnit = `
[Service]
Type=notify
ExecStart=%h/hsu-master run --state-dir %h/state --config %h/hsu.yaml
ExecReload=%h/hsu-master reload --state-dir %h/state
Restart=always
RestartSec=100ms
KillMode=process
WatchdogSec=4s
FileDescriptorStoreMax=16
`

// startUserManager starts the systemd of a new user until the end of the test. There is no session of logind here,
// which would tell it its runtime folder.
func startUserManager(t *testing.T) *userManager {
	t.Helper()
	const name, uid = "hsu-user", 4242
	u := &userManager{t: t, uid: uid, home: filepath.Join("/home", name)}
	manager := fmt.Sprintf("user@%d.service", uid)
	dropIn := filepath.Join("/run/systemd/system", manager+".d")
	command(t, "useradd", "--create-home", "--uid", strconv.Itoa(uid), name)
	t.Cleanup(func() {
		for _, args := range [][]string{{"systemctl", "stop", manager}, {"userdel", "--remove", name}} {
			if output, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Errorf("%v: %v\n%s", args, err, output)
			}
		}
		if err := os.RemoveAll(dropIn); err != nil {
			t.Error(err)
		}
	})
	const text = "[Service]\nPAMName=\nEnvironment=XDG_RUNTIME_DIR=/run/user/%i\n"
	if err := errors.Join(os.MkdirAll(dropIn, 0o755),
		os.WriteFile(filepath.Join(dropIn, "test.conf"), []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	command(t, "systemctl", "daemon-reload")
	command(t, "systemctl", "start", manager)
	return u
}

// run runs a program as the user.
func (u *userManager) run(args ...string) string {
	u.t.Helper()
	id := strconv.Itoa(u.uid)
	return command(u.t, "setpriv", append([]string{
		"--reuid", id, "--regid", id, "--init-groups",
		"env", "HOME=" + u.home, "XDG_RUNTIME_DIR=/run/user/" + id,
	}, args...)...)
}

// write writes a file of the user.
func (u *userManager) write(name, content string, mode os.FileMode) {
	u.t.Helper()
	path := filepath.Join(u.home, name)
	u.run("mkdir", "-p", filepath.Dir(path))
	if err := errors.Join(os.WriteFile(path+".new", []byte(content), mode), os.Chown(path+".new", u.uid, u.uid),
		os.Rename(path+".new", path)); err != nil {
		u.t.Fatal(err)
	}
}

func (u *userManager) property(name string) string {
	u.t.Helper()
	return u.run("systemctl", "--user", "show", "--value", "-p", name, service)
}

// ready waits until a master other than that with the given PID runs as many workers.
func (u *userManager) ready(other, running int) (s state) {
	u.t.Helper()
	waitFor(u.t, 60*time.Second, func() error {
		s = state{}
		output := u.run(filepath.Join(u.home, "hsu-master"), "state", "dump", "--json", "--state-dir", u.home+"/state")
		if err := json.Unmarshal([]byte(output), &s); err != nil {
			return err
		}
		n := 0
		for _, w := range s.Workers {
			if w.Status == "running" {
				n++
			}
		}
		if s.MasterPID == 0 || s.MasterPID == other || n != running || u.property("ActiveState") != "active" {
			return fmt.Errorf("state is %+v", s)
		}
		return nil
	})
	return s
}

// wantService expects the main process, and so many restarts.
func (u *userManager) wantService(pid, restarts int) {
	u.t.Helper()
	got := u.property("MainPID") + " " + u.property("NRestarts")
	if want := fmt.Sprint(pid, " ", restarts); got != want {
		u.t.Errorf("main PID and restarts are %s, want %s", got, want)
	}
}

// A service of an ordinary user is reloaded and upgraded in place, its watchdog restarts a master that hangs, and the
// workers stay.
func TestServiceOfAUser(t *testing.T) {
	u := startUserManager(t)
	own := filepath.Join(u.home, "hsu-master")
	config := func(replicas int) {
		t.Helper()
		u.write("hsu.yaml", fmt.Sprintf("listen: %q\nunits: {worker: {command: [%q], replicas: %d}}\n",
			address, worker, replicas), 0o600)
	}
	former := readFile(t, master)
	version := strings.Fields(command(t, master, "version"))[1]
	u.write("hsu-master", former, 0o755)
	config(2)
	u.write(".config/systemd/user/"+service, userUnit, 0o644)
	u.run("systemctl", "--user", "daemon-reload")
	u.run("systemctl", "--user", "start", service)
	first := u.ready(0, 2)

	config(3)
	u.run("systemctl", "--user", "reload", service)
	reloaded := u.ready(0, 3)
	u.wantService(first.MasterPID, 0)

	l := startLoad(t)
	for _, next := range []struct{ program, version string }{{readFile(t, newer), newerVersion}, {former, version}} {
		u.write("hsu-master", next.program, 0o755)
		output := u.run(own, "upgrade", "--state-dir", u.home+"/state")
		if !strings.Contains(output, "to "+next.version) {
			t.Errorf("the upgrade: %s, want version %s", output, next.version)
		}
		wantSame(t, "an upgrade", reloaded, u.ready(0, 3))
		u.wantService(first.MasterPID, 0)
		// A program that does not tell systemd that it lives ends by the watchdog in this time.
		time.Sleep(5 * time.Second)
		u.wantService(first.MasterPID, 0)
	}
	l.end()
	if l.refused.Load() != 0 {
		t.Errorf("%d of %d connections refused", l.refused.Load(), l.dials.Load())
	}

	if err := syscall.Kill(first.MasterPID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	restarted := u.ready(first.MasterPID, 3)
	wantSame(t, "the watchdog", reloaded, restarted)
	u.wantService(restarted.MasterPID, 1)
	u.run("systemctl", "--user", "stop", service)
	if got := u.property("Result"); got != "success" {
		t.Errorf("the service ended with %s", got)
	}
	if left := ours(t); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
}

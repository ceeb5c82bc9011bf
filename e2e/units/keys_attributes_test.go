//go:build e2e && linux

package units

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/store/records"
)

// needRoot skips a test whose masters change users.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		harness.SkipOutsideCI(t, "starts workers as another user, which only root may")
	}
}

// admitAll lets all users enter the folders of the site and read its files.
func (s *site) admitAll() {
	s.T.Helper()
	err := errors.Join(os.Chmod(harness.Programs.Dir, 0o711), os.Chmod(s.Dir, 0o711))
	err = errors.Join(err, filepath.WalkDir(s.folder, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chmod(path, 0o755))
	}))
	if err != nil {
		s.T.Fatal(err)
	}
}

// statusOf returns fields of a file such as /proc/PID/status.
func statusOf(t *testing.T, path string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		fields[key] = strings.Join(strings.Fields(value), " ")
	}
	return fields
}

// limits returns the soft and hard limits in /proc/PID/limits by their names.
func limits(t *testing.T, pid int) map[string]string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for line := range strings.Lines(string(text)) {
		const nameWidth = 26
		if len(line) > nameWidth {
			values := strings.Fields(line[nameWidth:])
			found[strings.TrimSpace(line[:nameWidth])] = values[0] + " " + values[1]
		}
	}
	return found
}

// niceOf returns the nice value of a process: field 19 of proc_pid_stat(5).
func niceOf(t *testing.T, pid int) string {
	t.Helper()
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	text := string(line)
	return strings.Fields(text[strings.LastIndexByte(text, ')'):])[17]
}

const fileOfAttributes = `
defaults: {kind: managed, command: [sleep, "1000000"], start: {settle: 20ms}, stop: {grace: 3s}}
units:
  plain: {}
  user: {user: nobody}
  group: {group: "7"}
  umask: {umask: "0137"}
  nice: {nice: 19}
  files: {limits: {open_files: 77, core: 0}}
  bounded: {capabilities: [NET_BIND_SERVICE]}
  ambient: {user: nobody, capabilities: [NET_BIND_SERVICE], umask: "0022"}
  bare: {capabilities: [], no_new_privileges: true}
`

func TestKeysOfAttributes(t *testing.T) {
	t.Parallel()
	needRoot(t)
	s := newSite(t, map[string]string{"hsu.yaml": fileOfAttributes})
	s.admitAll()
	m := s.start()
	const workers = 9
	d := s.awaitUp(workers)
	// The rights are those of the program, not of what starts it.
	harness.WaitFor(t, "all run their program", func() error {
		for _, w := range d.Workers {
			if command, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", w.PID)); string(command) != "sleep\n" {
				return errors.Join(err, fmt.Errorf("%s is %q", w.ID, command))
			}
		}
		return nil
	})
	plain := d.Worker(t, "plain-0")
	master := statusOf(t, fmt.Sprintf("/proc/%d/status", m.PID))
	const none, bind = "0000000000000000", "0000000000000400"
	for id, want := range map[string]map[string]string{
		"plain-0": {"CapBnd": master["CapBnd"], "NoNewPrivs": "0", "Umask": master["Umask"], "Uid": "0 0 0 0"},
		"user-0":  {"Uid": "65534 65534 65534 65534", "CapEff": none, "CapPrm": none, "Groups": "65534"},
		"group-0": {"Uid": "0 0 0 0", "Gid": "7 7 7 7"},
		"umask-0": {"Umask": "0137"},
		"bounded-0": {
			"CapEff": bind, "CapPrm": bind, "CapBnd": bind, "Uid": "0 0 0 0",
		},
		"ambient-0": {
			"CapEff": bind, "CapPrm": bind, "CapBnd": bind, "CapAmb": bind, "Uid": "65534 65534 65534 65534",
			"Umask": "0022",
		},
		"bare-0": {"CapEff": none, "CapPrm": none, "CapBnd": none, "NoNewPrivs": "1"},
	} {
		got := statusOf(t, fmt.Sprintf("/proc/%d/status", d.Worker(t, id).PID))
		for key, value := range want {
			if got[key] != value {
				t.Errorf("%s: %s is %q, want %q", id, key, got[key], value)
			}
		}
	}
	if got := niceOf(t, d.Worker(t, "nice-0").PID); got != "19" {
		t.Errorf("nice-0 has nice %s", got)
	}
	files := limits(t, d.Worker(t, "files-0").PID)
	if files["Max open files"] != "77 77" || files["Max core file size"] != "0 0" {
		t.Errorf("files-0 has %v", files)
	}
	// A test process passes on the attributes that the master was started with.
	if got, want := limits(t, plain.PID)["Max open files"], originalLimit(t); got != want {
		t.Errorf("plain-0 may open %s files, want %s as the master at its start", got, want)
	}
	wantEqualThreads(t, m)

	m.Kill()
	m = s.start()
	s.awaitUp(workers).WantInstances(t, d.Instances())

	// A change of each key restarts its worker, and no other one.
	s.write("hsu.yaml", strings.NewReplacer(
		"0137", "0027", "77,", "78,", "nice: 19", "nice: 18", `group: "7"`, `group: "8"`,
		"user: nobody}", "user: nobody, no_new_privileges: true}",
	).Replace(fileOfAttributes))
	s.admitAll()
	if r := s.CLI("reload"); r.Code != 0 {
		t.Fatalf("reload: %+v", r)
	}
	var restarted []string
	for _, w := range s.awaitUp(workers).Workers {
		if w.PID != d.Worker(t, w.ID).PID {
			restarted = append(restarted, w.ID)
		}
	}
	slices.Sort(restarted)
	if want := []string{"files-0", "group-0", "nice-0", "umask-0", "user-0"}; !slices.Equal(restarted, want) {
		t.Errorf("restarted are %v, want %v", restarted, want)
	}
	m.Stop()
	s.WantNothingLeft()
}

func originalLimit(t *testing.T) string {
	t.Helper()
	s := newSite(t, nil)
	m := s.Exec("/bin/sh", nil, "-c", "ulimit -Sn; ulimit -Hn")
	m.WantExit(0)
	return strings.Join(strings.Fields(m.Log()), " ")
}

// wantEqualThreads checks that all threads of a master have the rights of the main thread, and that these are those of
// this process: a start with fewer rights must not cost the master its own.
func wantEqualThreads(t *testing.T, m *harness.Master) {
	t.Helper()
	own := statusOf(t, "/proc/self/status")
	harness.WaitFor(t, "all threads of the master have its rights", func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", m.PID))
		if err != nil || len(threads) < 2 {
			return errors.Join(err, fmt.Errorf("the threads are %v", threads))
		}
		for _, path := range threads {
			text, err := os.ReadFile(path)
			if err != nil {
				continue // it has ended
			}
			for _, key := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Uid"} {
				want := key + ":\t" + strings.ReplaceAll(own[key], " ", "\t") + "\n"
				if !strings.Contains(string(text), want) {
					return fmt.Errorf("%s does not have %q", path, want)
				}
			}
		}
		return nil
	})
}

// After each loss of its knowledge, a master must find the workers of another user again.
func TestWorkersOfAnotherUserAreFoundAgain(t *testing.T) {
	t.Parallel()
	needRoot(t)
	s := newSite(t, map[string]string{"hsu.yaml": `
units:
  search:
    command: ["${UNIT}", -as, "plain", -record, "${NOTES}"]
    replicas: 2
    user: nobody
    umask: "0077"
    stop: {grace: 1s}
    health:
      type: exec
      command: [sh, -c, 'id -u >"$0.new" && mv "$0.new" "$0"', "${NOTES}/{worker}"]
      interval: 10s
`})
	s.environ = []string{"UNIT=" + harness.Programs.Unit, "NOTES=" + s.Record}
	s.admitAll()
	if err := os.Chown(s.Record, harness.Nobody, harness.Nobody); err != nil {
		t.Fatal(err)
	}
	m := s.start()
	before := s.awaitUp(2)
	for _, w := range before.Workers {
		if got := statusOf(t, fmt.Sprintf("/proc/%d/status", w.PID))["Uid"]; got != "65534 65534 65534 65534" {
			t.Errorf("%s has uid %s", w.ID, got)
		}
	}
	harness.WaitFor(t, "a check has run as the user of the unit", func() error {
		text, err := os.ReadFile(filepath.Join(s.Record, "search-1"))
		if string(text) != "65534\n" {
			return errors.Join(err, fmt.Errorf("it noted %q", text))
		}
		return nil
	})
	s.Ask("of nobody")

	forget := func(id string) {
		s.EditRecord(id, func(w *records.Worker) {
			w.Instance.PID, w.Instance.Inode, w.Instance.StartTicks = 0, 0, 0
			w.Status = records.StatusStarting
		})
	}
	remove := func(names ...string) {
		for _, name := range names {
			files, err := filepath.Glob(filepath.Join(s.State, name))
			for _, path := range files {
				err = errors.Join(err, os.RemoveAll(path))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, loss := range []struct {
		name string
		act  func()
	}{
		{"nothing", func() {}},
		{"the PIDs", func() { forget("search-0"); forget("search-1") }},
		{"the registry", func() { remove("state.db", "backups", "counter.dat") }},
		{"the registry and the id of the master", func() { remove("state.db", "backups", "counter.dat", "master-id") }},
	} {
		m.Kill()
		loss.act()
		m = s.start("--on-damage", "recover")
		d := s.awaitUp(2)
		for _, w := range d.Workers {
			if was := before.Worker(t, w.ID); w.PID != was.PID || w.Port != was.Port || w.Token != was.Token {
				t.Errorf("after the loss of %s: %+v, want process %d", loss.name, w, was.PID)
			}
		}
		s.WantNoTwin(d)
		s.Ask("after the loss of " + loss.name)
	}

	m.Stop()
	s.WantNothingLeft()
}

// The remaining processes of a worker of another user that died are stopped before the next instance starts, with a
// master and without. One of the descendants has cleared its environment and left the session: its user and the lease
// show it.
func TestFamilyOfAWorkerOfAnotherUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	s := newSite(t, map[string]string{"hsu.yaml": `
units:
  search:
    command: ["${UNIT}", -as, plain+child+baredaemon, -record, "${NOTES}"]
    user: nobody
    limits: {open_files: 200}
    stop: {grace: 1s}
`})
	s.environ = []string{"UNIT=" + harness.Programs.Unit, "NOTES=" + s.Record}
	s.admitAll()
	if err := os.Chown(s.Record, harness.Nobody, harness.Nobody); err != nil {
		t.Fatal(err)
	}
	// descended waits for n descendants in all, and returns the processes of the host.
	descended := func(n int) []harness.Process {
		harness.WaitFor(t, "the descendants have started", func() error {
			files, err := filepath.Glob(filepath.Join(s.Record, "*.[0-9]*"))
			files = slices.DeleteFunc(files, func(path string) bool { return strings.HasSuffix(path, ".new") })
			if len(files) < n {
				return errors.Join(err, fmt.Errorf("they left %q", files))
			}
			return nil
		})
		return s.Processes()
	}
	m := s.start()
	w := s.awaitUp(1).Worker(t, "search-0")
	const descendants = 2
	for i, down := range []bool{false, true} {
		former := descended((i + 1) * descendants)
		if down {
			m.Kill()
		}
		s.KillWorker(w.PID)
		if down {
			m = s.start()
		}
		w = s.await("search-0", "runs again", func(now harness.Worker) bool { return up(now) && now.PID != w.PID })
		now := s.Processes()
		for _, was := range former {
			if slices.ContainsFunc(now, func(p harness.Process) bool {
				return p.PID == was.PID && p.StartTicks == was.StartTicks
			}) {
				t.Errorf("of the former instance is left: %v", was)
			}
		}
	}
	descended(3 * descendants)
	m.Stop()
	s.WantNothingLeft()
}

// A worker of another user can reach neither the state nor the log of a worker, except by the descriptors that it was
// given.
func TestWorkerOfAnotherUserCannotReachTheState(t *testing.T) {
	t.Parallel()
	needRoot(t)
	s := newSite(t, map[string]string{
		"hsu.yaml": `
defaults: {kind: managed, start: {settle: 20ms}}
units:
  spy: {command: [./spy], user: nobody, environment: {STATE: "${STATE}", NOTES: "${NOTES}"}}
  other: {command: [sleep, "1000000"]}
`,
		"spy": `#!/bin/sh
echo "written to its own log"
{
	for f in . state.db master.lock logs/other-0.log logs/spy-0.log run/spy-0.lease run/admin.sock; do
		[ -r "$STATE/$f" ] && echo "reads $f"
		[ -w "$STATE/$f" ] && echo "writes $f"
	done
	echo "home $HOME user $USER logname $LOGNAME"
} >"$NOTES/seen.new"
mv "$NOTES/seen.new" "$NOTES/seen"
exec sleep 1000000
`,
	})
	s.environ = []string{"STATE=" + s.State, "NOTES=" + s.Record}
	s.admitAll()
	if err := os.Chown(s.Record, harness.Nobody, harness.Nobody); err != nil {
		t.Fatal(err)
	}
	m := s.start()
	s.awaitUp(2)
	var seen []byte
	harness.WaitFor(t, "the spy has looked", func() (err error) {
		seen, err = os.ReadFile(filepath.Join(s.Record, "seen"))
		return err
	})
	if want := "home /nonexistent user nobody logname nobody\n"; string(seen) != want {
		t.Errorf("the spy has seen\n%swant\n%s", seen, want)
	}
	if log, err := os.ReadFile(filepath.Join(s.State, "logs", "spy-0.log")); !strings.Contains(string(log), "own log") {
		t.Errorf("the log of the spy: %q, %v", log, err)
	}
	m.Stop()
	s.WantNothingLeft()
}

// The reason of a start that failed names what to do.
func TestAttributesThatCannotBeGiven(t *testing.T) {
	t.Parallel()
	needRoot(t)
	s := newSite(t, map[string]string{
		"hsu.yaml": `
defaults: {kind: managed, command: [sleep, "1000000"], start: {settle: 20ms}, restart: {policy: never}}
units:
  unknown: {user: "54321"}
  many: {limits: {open_files: 2000000000}}
  replaceable: {command: [./mine], user: nobody}
  theirs: {command: [./theirs], user: nobody}
  root: {command: [./theirs]}
  missing: {command: [./none], umask: "0022"}
`,
		"mine": noting, "theirs": "#!/bin/sh\nexec sleep 1000000\n",
	})
	s.admitAll()
	if err := errors.Join(os.Chown(s.path("mine"), 7, 7), os.Chown(s.path("theirs"), harness.Nobody, 0)); err != nil {
		t.Fatal(err)
	}
	m := s.start()
	for id, want := range map[string]string{
		"unknown-0":     "user 54321 has no entry on this host, so its group is not known: set the group too",
		"many-0":        "limits.open_files: 2000000000 is above what the master may set",
		"replaceable-0": "mine belongs to user 7 (mode -rwxr-xr-x), who could have user 65534 execute another program",
		"root-0":        "theirs belongs to user 65534",
		"missing-0":     "none: no such file or directory",
	} {
		s.await(id, "has failed", func(w harness.Worker) bool {
			return w.Status == "failed" && strings.Contains(w.Reason, want)
		})
	}
	s.await("theirs-0", "runs", up)
	m.Stop()
	s.WantNothingLeft()
}

// A start helper whose master died, and that for some reason does not notice, is no worker: the next master ends it and
// starts the worker.
func TestStartHelperOfADeadMasterIsNoWorker(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": `
units:
  limited: {kind: managed, command: [sleep, "1000000"], umask: "0022", start: {settle: 20ms}, stop: {grace: 3s}}
`})
	m := s.start()
	d := s.awaitUp(1)
	m.Kill()
	w := d.Worker(t, "limited-0")
	s.KillWorker(w.PID)
	s.EditRecord("limited-0", func(w *records.Worker) {
		w.Instance.PID, w.Instance.Inode, w.Instance.StartTicks = 0, 0, 0
		w.Status = records.StatusStarting
	})
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	own, its := os.NewFile(uintptr(pair[0]), "own"), os.NewFile(uintptr(pair[1]), "its")
	defer func() { _ = own.Close() }()
	file := filepath.Join(s.Record, "ran")
	helper := &exec.Cmd{
		Path: harness.Programs.Master, Args: []string{"hsu-master-start", "{}", "/bin/touch", file},
		Env: []string{
			"HSU_MASTER_ID=" + d.MasterID, "HSU_STATE_DIR=" + harness.StateID(s.State), "HSU_WORKER_ID=limited-0",
			"HSU_WORKER_TOKEN=" + w.Token,
		},
		ExtraFiles: []*os.File{its, its}, SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := errors.Join(helper.Start(), its.Close()); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- helper.Wait() }()
	if _, err := own.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the helper is not ready: %v", err)
	}
	plan := s.CLI("state", "plan", "--config", s.path("hsu.yaml"))
	if want := fmt.Sprintf("its start was cut off before a process came to be; what is left of it is stopped first "+
		"(process %d)", helper.Process.Pid); plan.Code != 0 || !strings.Contains(plan.Stdout, want) {
		t.Errorf("state plan: %+v, want %q", plan, want)
	}
	select {
	case err := <-ended:
		t.Fatalf("the plan has ended the helper: %v", err)
	default:
	}
	m = s.start()
	after := s.awaitUp(1)
	select {
	case err := <-ended:
		if err == nil || err.Error() != "signal: killed" {
			t.Errorf("the helper has ended: %v, want it killed", err)
		}
	case <-time.After(harness.Patience):
		t.Fatalf("the helper lives, and the worker is %+v", after.Workers)
	}
	if now := after.Worker(t, "limited-0"); now.PID == helper.Process.Pid || now.Restarts != w.Restarts {
		t.Errorf("%+v, want another process, and no restart counted", now)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the program of the helper has run: %v", err)
	}
	s.WantNoTwin(after)
	m.Stop()
	s.WantNothingLeft()
}

// A user that has been removed from the host keeps only its own unit from starting. A name that is unknown from the
// beginning is a mistake of the file.
func TestRemovedUserStopsNoOtherUnit(t *testing.T) {
	t.Parallel()
	needRoot(t)
	const file = `
defaults: {kind: managed, start: {settle: 20ms}, stop: {grace: 1s}, restart: {backoff: {initial: 10ms, max: 50ms}}}
units:
  good: {command: [sleep, "1000000"]}
  gone: {command: [sleep, "1000000"], user: nobody}
`
	removed := strings.ReplaceAll(file, "nobody", "no-such-user")
	s := newSite(t, map[string]string{"hsu.yaml": removed})
	s.admitAll()
	s.Launch(s.Program, s.environ).WantExit(2)
	s.write("hsu.yaml", file)
	s.admitAll()
	m := s.start()
	before := s.awaitUp(2)
	m.Kill()
	s.write("hsu.yaml", removed) // as if the user had been removed
	s.admitAll()
	m = s.start()
	s.awaitUp(2).WantInstances(t, before.Instances())
	s.KillWorker(before.Worker(t, "gone-0").PID)
	says := func(w harness.Worker) bool {
		return w.PID == 0 && strings.Contains(w.Reason, `there is no user "no-such-user" on this host`)
	}
	s.await("gone-0", "says why it does not run", says)
	if r := s.CLI("reload"); r.Code != 2 {
		t.Errorf("reload: %+v, want exit code 2", r)
	}
	m.Stop() // a reboot begins with an orderly stop
	m = s.start()
	s.await("good-0", "runs", up)
	s.await("gone-0", "says why it does not run", says)
	m.Stop()
	s.WantNothingLeft()
}

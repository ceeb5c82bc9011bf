//go:build e2e && linux

package state

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// Attacks of other users on a master through files.

// soon is the limit for operations that must not block.
const soon = 15 * time.Second

// promptly runs a command that must end, whatever the files are.
func promptly(h *harness.Host, args ...string) harness.Result {
	h.T.Helper()
	begun := time.Now()
	r := h.CLI(args...)
	if took := time.Since(begun); took > soon {
		h.T.Errorf("%q took %s", args, took.Round(time.Millisecond))
	}
	return r
}

var readers = [][]string{{"status"}, {"worker", "list"}, {"state", "dump"}, {"state", "check"}}

// The files of a state are FIFOs, which block every open, or links to a file that the master must not touch.
func TestFilesOfTheStateThatAreNone(t *testing.T) {
	const precious = "precious"
	kinds := map[string]func(path, target string) error{
		"FIFO": func(path, _ string) error { return syscall.Mkfifo(path, 0o600) },
		"link": func(path, target string) error { return os.Symlink(target, path) },
	}
	for _, file := range []string{
		"master-id", "counter.dat", "state.db", "master.lock", "admin.path", "admin.path.new", "state.db.tmp",
		"backups", "run/worker-0.lease.new", "logs/worker-0.log",
	} {
		for kind, create := range kinds {
			t.Run(file+" is a "+kind, func(t *testing.T) {
				t.Parallel()
				h := harness.NewHost(t, harness.Workers(1)...)
				path, target := filepath.Join(h.State, file), filepath.Join(h.Dir, "target")
				if err := errors.Join(
					os.MkdirAll(filepath.Dir(path), 0o700),
					os.WriteFile(target, []byte(precious), 0o600),
					create(path, target),
				); err != nil {
					t.Fatal(err)
				}
				for _, command := range readers {
					promptly(h, command...)
				}
				m := h.Launch(harness.Programs.Master, nil)
				harness.WaitFor(t, "it runs, or says what is in its way", func() error {
					log := m.Log()
					if strings.Contains(log, "worker running") || strings.Contains(log, file) {
						return nil
					}
					return fmt.Errorf("it says %q", log)
				})
				promptly(h, "status")
				begun := time.Now()
				endIfRunning(m)
				if took := time.Since(begun); took > soon {
					t.Errorf("it took %s to end", took)
				}
				if text, err := os.ReadFile(target); string(text) != precious || err != nil {
					t.Errorf("the file that the link leads to holds %q, %v", text, err)
				}
				h.WantNothingLeft()
			})
		}
	}
}

func TestLogThatBecomesAFIFOHoldsUpItsOwnWorkerAlone(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	before := h.AwaitRunning(2)
	log := filepath.Join(h.State, "logs", "worker-0.log")
	if err := errors.Join(os.Remove(log), syscall.Mkfifo(log, 0o600)); err != nil {
		t.Fatal(err)
	}
	h.KillWorker(before.Worker(t, "worker-0").PID)
	h.AwaitWorkers(2, "run, or say why not", func(w harness.Worker) bool {
		return w.ID == "worker-1" && w.PID == before.Worker(t, "worker-1").PID ||
			w.ID == "worker-0" && w.Status == "backoff" &&
				strings.Contains(w.Reason, log+": not a regular file but a FIFO: move it away")
	})
	for _, command := range readers {
		promptly(h, command...)
	}
	harness.WaitFor(t, "worker list names the FIFO, as it does between two attempts", func() error {
		if r := promptly(h, "worker", "list"); !strings.Contains(r.Stdout, "FIFO") {
			return fmt.Errorf("it prints %q %q", r.Stdout, r.Stderr)
		}
		return nil
	})
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	h.WantNoTwin(h.AwaitRunning(2))
	m.Stop()
	h.WantNothingLeft()
}

// The worker's last output would be shown, but the FIFO has no writer.
func TestLogOfAFailedWorkerThatIsAFIFOIsNotRead(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = append(h.Units("deaf"), "--start-timeout", "100ms", "--restart-backoff", "1ms",
		"--restart-budget", "1/5m")
	m := h.Start()
	h.AwaitFailed(1)
	log := filepath.Join(h.State, "logs", "worker-0.log")
	if err := errors.Join(os.Remove(log), syscall.Mkfifo(log, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, command := range readers {
		if r := promptly(h, command...); command[0] == "worker" && !strings.Contains(r.Stdout, "failed") {
			t.Errorf("%q says %q %q, want the worker", command, r.Stdout, r.Stderr)
		}
	}
	m.Stop()
	h.WantNothingLeft()
}

// A root master refuses a directory into which other users can put files, and leaves it unchanged.
func TestRootWorksInNoFolderOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		harness.SkipOutsideCI(t, "gives folders to another user, which only root may")
	}
	give := func(path string) error { return os.Chown(path, harness.Nobody, harness.Nobody) }
	open := func(mode fs.FileMode) func(string) error {
		return func(path string) error { return os.Chmod(path, mode) }
	}
	for name, tt := range map[string]struct {
		folder string // below the test's own directory
		change func(path string) error
		want   string
	}{
		"state of another":   {"state", give, "belongs to user 65534"},
		"state of the group": {"state", open(0o770), "can be written by users other than root"},
		"state of all":       {"state", open(0o777), "can be written by users other than root"},
		"sticky state":       {"state", open(0o777 | fs.ModeSticky), "can be written by users other than root"},
		"parent of another":  {".", give, "belongs to user 65534"},
		"logs of another":    {"state/logs", give, "belongs to user 65534"},
		"run of all":         {"state/run", open(0o777), "can be written by users other than root"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := harness.NewHost(t, harness.Workers(1)...)
			folder := filepath.Join(h.Dir, tt.folder)
			if err := errors.Join(os.MkdirAll(folder, 0o700), tt.change(folder)); err != nil {
				t.Fatal(err)
			}
			m := h.Launch(harness.Programs.Master, nil)
			m.WantExit(1)
			for _, want := range []string{folder, tt.want, "run hsu-master as"} {
				if !strings.Contains(m.Log(), want) {
					t.Errorf("it said %q, want %q in it", m.Log(), want)
				}
			}
			made, err := os.ReadDir(filepath.Join(h.Dir, cmp.Or(strings.Trim(tt.folder, "."), "state")))
			if err != nil && !errors.Is(err, fs.ErrNotExist) || len(made) > 0 {
				t.Errorf("it made %v in it (%v)", made, err)
			}
			if err := os.Chown(h.Dir, 0, 0); err != nil { // so that the test can clean up
				t.Fatal(err)
			}
		})
	}
}

// Root inspects the state that another user's master has left.
func TestRootReadsTheStateOfAnother(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(1)...)
	h.AsNobody()
	m := h.Start()
	h.AwaitRunning(1)
	if r := h.CLI("status"); r.Code != 0 {
		t.Errorf("of a running master: exit code %d: %s", r.Code, r.Stderr)
	}
	m.Stop()
	for _, command := range [][]string{{"state", "dump"}, {"state", "check"}, {"worker", "list"}} {
		if r := h.CLI(command...); r.Code != 0 {
			t.Errorf("%q: exit code %d: %s", command, r.Code, r.Stderr)
		}
	}
	h.WantNothingLeft()
}

// A root master checks a program at each start, not only at the first.
func TestRootStartsNoProgramThatOthersCanReplace(t *testing.T) {
	if os.Geteuid() != 0 {
		harness.SkipOutsideCI(t, "gives a folder to another user, which only root may")
	}
	t.Parallel()
	h := harness.NewHost(t)
	folder := filepath.Join(h.Dir, "bin")
	path := filepath.Join(folder, "worker")
	text := fmt.Appendf(nil, "#!/bin/sh\nexec %s \"$@\"\n", harness.Programs.Worker)
	if err := errors.Join(os.Mkdir(folder, 0o755), os.WriteFile(path, text, 0o755)); err != nil {
		t.Fatal(err)
	}
	h.Flags = harness.WorkersOf(path, 1)
	m := h.Start()
	before := h.AwaitRunning(1).Workers[0]
	if err := os.Chown(folder, harness.Nobody, harness.Nobody); err != nil {
		t.Fatal(err)
	}
	h.KillWorker(before.PID)
	h.AwaitWorkers(1, "is not started", func(w harness.Worker) bool {
		return w.Status == "backoff" && strings.Contains(w.Reason, folder+" belongs to user 65534") &&
			strings.Contains(w.Reason, "chown root it")
	})
	if err := os.Chown(folder, 0, 0); err != nil {
		t.Fatal(err)
	}
	h.AwaitRunning(1)
	m.Stop()
	h.WantNothingLeft()
}

func TestInterpreterThatIsMissingIsNamed(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	path := filepath.Join(h.Dir, "worker.sh")
	write := func(firstLine string) {
		t.Helper()
		text := fmt.Appendf(nil, "%s\nexec %s \"$@\"\n", firstLine, harness.Programs.Worker)
		if err := os.WriteFile(path, text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("#!/bin/sh")
	h.Flags = harness.WorkersOf(path, 1)
	m := h.Start()
	w := h.AwaitRunning(1).Workers[0]
	write("#!/bin/sh\r")
	h.KillWorker(w.PID)
	const want = `interpreter "/bin/sh\r" of `
	h.AwaitWorkers(1, "says what is missing", func(w harness.Worker) bool { return strings.Contains(w.Reason, want) })
	harness.WaitFor(t, "status says what to do, as it does between two attempts", func() error {
		if r := h.CLI("status"); !strings.Contains(r.Stdout, "convert them to LF") {
			return fmt.Errorf("it prints %q %q", r.Stdout, r.Stderr)
		}
		return nil
	})
	harness.WaitFor(t, "the log says it too", func() error {
		if log := m.Log(); !strings.Contains(log, "convert them to LF") {
			return errors.New(log)
		}
		return nil
	})
	write("#!/bin/sh")
	h.AwaitRunning(1)
	m.Stop()
	write("#!/no/such/interpreter")
	m = h.Launch(harness.Programs.Master, nil)
	m.WantExit(2)
	if !strings.Contains(m.Log(), `interpreter "/no/such/interpreter" of `+path) {
		t.Errorf("it said %q", m.Log())
	}
	h.WantNothingLeft()
}

// endIfRunning sends SIGTERM to a master that may be ending by itself, and returns when it has ended.
func endIfRunning(m *harness.Master) {
	m.Host.T.Helper()
	if err := m.Cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		m.Host.T.Fatal(err)
	}
	m.Wait()
}

//go:build e2e && linux

package e2e

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
)

// Attacks of other users on a master through files.

// soon is the limit for operations that must not block.
const soon = 15 * time.Second

// promptly runs a command that must end, whatever the files are.
func (h *host) promptly(args ...string) result {
	h.t.Helper()
	begun := time.Now()
	r := h.cli(args...)
	if took := time.Since(begun); took > soon {
		h.t.Errorf("%q took %s", args, took.Round(time.Millisecond))
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
				h := newHost(t, workers(1)...)
				path, target := filepath.Join(h.state, file), filepath.Join(h.dir, "target")
				if err := errors.Join(
					os.MkdirAll(filepath.Dir(path), 0o700),
					os.WriteFile(target, []byte(precious), 0o600),
					create(path, target),
				); err != nil {
					t.Fatal(err)
				}
				for _, command := range readers {
					h.promptly(command...)
				}
				m := h.launch(programs.master, nil)
				waitFor(t, "it runs, or says what is in its way", func() error {
					log := m.log()
					if strings.Contains(log, "worker running") || strings.Contains(log, file) {
						return nil
					}
					return fmt.Errorf("it says %q", log)
				})
				h.promptly("status")
				begun := time.Now()
				m.endIfRunning()
				if took := time.Since(begun); took > soon {
					t.Errorf("it took %s to end", took)
				}
				if text, err := os.ReadFile(target); string(text) != precious || err != nil {
					t.Errorf("the file that the link leads to holds %q, %v", text, err)
				}
				h.wantNothingLeft()
			})
		}
	}
}

func TestLogThatBecomesAFIFOHoldsUpItsOwnWorkerAlone(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	m := h.start()
	before := h.awaitRunning(2)
	log := filepath.Join(h.state, "logs", "worker-0.log")
	if err := errors.Join(os.Remove(log), syscall.Mkfifo(log, 0o600)); err != nil {
		t.Fatal(err)
	}
	h.killWorker(before.worker(t, "worker-0").PID)
	h.awaitWorkers(2, "run, or say why not", func(_ dump, w worker) bool {
		return w.ID == "worker-1" && w.PID == before.worker(t, "worker-1").PID ||
			w.ID == "worker-0" && w.Status == "backoff" &&
				strings.Contains(w.Reason, log+": not a regular file but a FIFO: move it away")
	})
	for _, command := range readers {
		h.promptly(command...)
	}
	waitFor(t, "worker list names the FIFO, as it does between two attempts", func() error {
		if r := h.promptly("worker", "list"); !strings.Contains(r.stdout, "FIFO") {
			return fmt.Errorf("it prints %q %q", r.stdout, r.stderr)
		}
		return nil
	})
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	h.wantNoTwin(h.awaitRunning(2))
	m.stop()
	h.wantNothingLeft()
}

// The worker's last output would be shown, but the FIFO has no writer.
func TestLogOfAFailedWorkerThatIsAFIFOIsNotRead(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.flags = append(h.units("deaf"), "--start-timeout", "100ms", "--restart-backoff", "1ms",
		"--restart-budget", "1/5m")
	m := h.start()
	h.awaitFailed(1)
	log := filepath.Join(h.state, "logs", "worker-0.log")
	if err := errors.Join(os.Remove(log), syscall.Mkfifo(log, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, command := range readers {
		if r := h.promptly(command...); command[0] == "worker" && !strings.Contains(r.stdout, "failed") {
			t.Errorf("%q says %q %q, want the worker", command, r.stdout, r.stderr)
		}
	}
	m.stop()
	h.wantNothingLeft()
}

// A root master refuses a directory into which other users can put files, and leaves it unchanged.
func TestRootWorksInNoFolderOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "gives folders to another user, which only root may")
	}
	give := func(path string) error { return os.Chown(path, nobody, nobody) }
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
			h := newHost(t, workers(1)...)
			folder := filepath.Join(h.dir, tt.folder)
			if err := errors.Join(os.MkdirAll(folder, 0o700), tt.change(folder)); err != nil {
				t.Fatal(err)
			}
			m := h.launch(programs.master, nil)
			m.wantExit(1)
			for _, want := range []string{folder, tt.want, "run hsu-master as"} {
				if !strings.Contains(m.log(), want) {
					t.Errorf("it said %q, want %q in it", m.log(), want)
				}
			}
			made, err := os.ReadDir(filepath.Join(h.dir, cmp.Or(strings.Trim(tt.folder, "."), "state")))
			if err != nil && !errors.Is(err, fs.ErrNotExist) || len(made) > 0 {
				t.Errorf("it made %v in it (%v)", made, err)
			}
			if err := os.Chown(h.dir, 0, 0); err != nil { // so that the test can clean up
				t.Fatal(err)
			}
		})
	}
}

// Root inspects the state that another user's master has left.
func TestRootReadsTheStateOfAnother(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(1)...)
	h.asNobody()
	m := h.start()
	h.awaitRunning(1)
	if r := h.cli("status"); r.code != 0 {
		t.Errorf("of a running master: exit code %d: %s", r.code, r.stderr)
	}
	m.stop()
	for _, command := range [][]string{{"state", "dump"}, {"state", "check"}, {"worker", "list"}} {
		if r := h.cli(command...); r.code != 0 {
			t.Errorf("%q: exit code %d: %s", command, r.code, r.stderr)
		}
	}
	h.wantNothingLeft()
}

// A root master checks a program at each start, not only at the first.
func TestRootStartsNoProgramThatOthersCanReplace(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "gives a folder to another user, which only root may")
	}
	t.Parallel()
	h := newHost(t)
	folder := filepath.Join(h.dir, "bin")
	path := filepath.Join(folder, "worker")
	text := fmt.Appendf(nil, "#!/bin/sh\nexec %s \"$@\"\n", programs.worker)
	if err := errors.Join(os.Mkdir(folder, 0o755), os.WriteFile(path, text, 0o755)); err != nil {
		t.Fatal(err)
	}
	h.flags = workersOf(path, 1)
	m := h.start()
	before := h.awaitRunning(1).Workers[0]
	if err := os.Chown(folder, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	h.killWorker(before.PID)
	h.awaitWorkers(1, "is not started", func(_ dump, w worker) bool {
		return w.Status == "backoff" && strings.Contains(w.Reason, folder+" belongs to user 65534") &&
			strings.Contains(w.Reason, "chown root it")
	})
	if err := os.Chown(folder, 0, 0); err != nil {
		t.Fatal(err)
	}
	h.awaitRunning(1)
	m.stop()
	h.wantNothingLeft()
}

func TestInterpreterThatIsMissingIsNamed(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	path := filepath.Join(h.dir, "worker.sh")
	write := func(firstLine string) {
		t.Helper()
		text := fmt.Appendf(nil, "%s\nexec %s \"$@\"\n", firstLine, programs.worker)
		if err := os.WriteFile(path, text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("#!/bin/sh")
	h.flags = workersOf(path, 1)
	m := h.start()
	w := h.awaitRunning(1).Workers[0]
	write("#!/bin/sh\r")
	h.killWorker(w.PID)
	const want = `interpreter "/bin/sh\r" of `
	h.awaitWorkers(1, "says what is missing", func(_ dump, w worker) bool { return strings.Contains(w.Reason, want) })
	waitFor(t, "status says what to do, as it does between two attempts", func() error {
		if r := h.cli("status"); !strings.Contains(r.stdout, "convert them to LF") {
			return fmt.Errorf("it prints %q %q", r.stdout, r.stderr)
		}
		return nil
	})
	waitFor(t, "the log says it too", func() error {
		if log := m.log(); !strings.Contains(log, "convert them to LF") {
			return errors.New(log)
		}
		return nil
	})
	write("#!/bin/sh")
	h.awaitRunning(1)
	m.stop()
	write("#!/no/such/interpreter")
	m = h.launch(programs.master, nil)
	m.wantExit(2)
	if !strings.Contains(m.log(), `interpreter "/no/such/interpreter" of `+path) {
		t.Errorf("it said %q", m.log())
	}
	h.wantNothingLeft()
}

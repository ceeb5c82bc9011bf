//go:build e2e && linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Bad input to a running master. Bad input on a command line is in testdata/script.

func TestWorkerThatNeverGetsReadyFailsWithWhatItDidNotDo(t *testing.T) {
	for habit, test := range map[string]struct{ timeout, want string }{
		"deaf": {"200ms", "did not open port %d within 200ms"},
		// The timeout is long, because the unit has to open its port within it, also on a loaded machine.
		"mute": {"5s", "opened port %d but answered no Ping within 5s"},
	} {
		t.Run(habit, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.flags = append(h.units(habit), "--start-timeout", test.timeout, "--restart-backoff", "1ms",
				"--restart-budget", "2/5m")
			m := h.start()
			w := h.awaitFailed(1).Workers[0]
			if w.Incarnation != 3 || w.Restarts != 2 || w.PID != 0 {
				t.Errorf("the worker = %+v, want it started three times and gone", w)
			}
			_, reason, _ := strings.Cut(w.Reason, "used up: ")
			if before, after, _ := strings.Cut(test.want, "%d"); !strings.Contains(reason, before) ||
				!strings.Contains(reason, after) {
				t.Errorf("reason = %q, want %q", w.Reason, test.want)
			}
			h.wantNothingLeft()
			m.stop()
		})
	}
}

func TestCallWithoutAReadyWorkerWaitsAsLongAsTheCallerAndNoLonger(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.flags = graceful(h.units("deaf"))
	m := h.start()
	r := h.cli("call", "process-data", "--data", "x", "--timeout", "200ms")
	explained := strings.Contains(r.stderr, "within 200ms") || strings.Contains(r.stderr, "no worker is ready")
	if r.code != 1 || !explained || !strings.Contains(r.stderr, "hsu-master") {
		t.Errorf("exit code %d, %q, want 1 and why", r.code, r.stderr)
	}
	if got := h.dump().ProcessedCount; got != 0 {
		t.Errorf("processed_count = %d, want 0", got)
	}
	m.stop()
}

func TestOversizedRequestIsRefusedAndNothingElseSuffers(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(1)...)
	m := h.start()
	before := h.awaitRunning(1)
	cmd := exec.CommandContext(t.Context(), programs.master, "call", "process-data",
		"--data", "-", "--state-dir", h.state)
	cmd.Stdin = bytes.NewReader(bytes.Repeat([]byte("x"), 5<<20))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("it ended with %v, want exit code 1", err)
	}
	got := stderr.String()
	if !strings.Contains(got, "larger than 4194304 bytes") || !strings.Contains(got, "hint: send less at a time") {
		t.Errorf("stderr = %q, want the limit and the next step", got)
	}
	// The largest request that fits is forwarded and answered.
	fits := strings.Repeat("y", 4<<20-100)
	h.ask(fits)
	after := h.awaitRunning(1)
	if after.ProcessedCount != 1 {
		t.Errorf("processed_count = %d, want 1", after.ProcessedCount)
	}
	if diff := cmp.Diff(before.instances(t), after.instances(t)); diff != "" {
		t.Errorf("the worker is not what it was (-before +after):\n%s", diff)
	}
	m.stop()
}

func TestSecondMasterOnTheSameStateIsToldWhoHoldsIt(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	first := h.start()
	before := h.awaitRunning(2)
	port := h.port
	h.port = freePort(t)
	second := h.launch(programs.master, nil)
	second.wantExit(4)
	h.port = port
	want := fmt.Sprintf("another master (pid %d) holds the state in %s", first.pid, h.state)
	if !strings.Contains(second.log(), want) {
		t.Errorf("it said %q, want %q", second.log(), want)
	}
	after := h.awaitRunning(2)
	if diff := cmp.Diff(before.instances(t), after.instances(t)); diff != "" || after.MasterPID != first.pid {
		t.Errorf("the first master's workers are not what they were (-before +after):\n%s", diff)
	}
	h.wantNoTwin(after)
	first.stop()
	h.wantNothingLeft()
}

func TestMasterWhosePortIsInUseTouchesNoWorker(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	m := h.start()
	before := h.awaitRunning(2)
	m.kill()
	other := newHost(t)
	other.port = h.port
	theirs := other.start()

	m = h.launch(programs.master, nil)
	m.wantExit(1)
	for _, want := range []string{"port in use", fmt.Sprint(h.port), "choose another --port"} {
		if !strings.Contains(m.log(), want) {
			t.Errorf("it said %q, want %q in it", m.log(), want)
		}
	}
	for _, w := range before.Workers {
		own(t, w.Port)
	}
	theirs.stop()
	m = h.start()
	after := h.awaitRunning(2)
	if diff := cmp.Diff(before.instances(t), after.instances(t)); diff != "" {
		t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
	}
	m.stop()
	h.wantNothingLeft()
}

func TestTwoMastersDoNotShareARuntimeFolder(t *testing.T) {
	t.Parallel()
	h, other := newHost(t, workers(1)...), newHost(t)
	m := h.start()
	h.awaitRunning(1)
	second := other.launch(programs.master, nil, "--runtime-dir", filepath.Join(h.state, "run"))
	second.wantExit(1)
	if got := second.log(); !strings.Contains(got, "is served by another master: choose another --runtime-dir") {
		t.Errorf("it said %q", got)
	}
	h.awaitRunning(1)
	m.stop()
}

// A reader changes nothing while a master runs, nor after it has crashed.
func TestReadersLeaveNoTrace(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(1)...)
	m := h.start()
	h.awaitRunning(1)
	m.kill()
	before := h.stateFiles()
	for _, command := range [][]string{{"state", "dump"}, {"state", "dump", "--json"}, {"worker", "list"}} {
		if r := h.cli(command...); r.code != 0 {
			t.Errorf("%q: exit code %d: %s", command, r.code, r.stderr)
		}
	}
	for _, command := range []string{"status", "ping"} { // commands about the master
		if r := h.cli(command); r.code != 3 {
			t.Errorf("%s: exit code %d, want 3: %s", command, r.code, r.stderr)
		}
	}
	if diff := cmp.Diff(before, h.stateFiles()); diff != "" {
		t.Errorf("readers changed the state folder (-before +after):\n%s", diff)
	}
	m = h.start()
	h.awaitRunning(1)
	m.stop()
}

// stateFiles lists the files in the state directory, except the logs of workers.
func (h *host) stateFiles() (files []string) {
	h.t.Helper()
	err := filepath.WalkDir(h.state, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.Name() == "logs" {
			return fs.SkipDir
		}
		info, err := entry.Info()
		if err == nil {
			files = append(files, fmt.Sprintln(path, info.Mode(), info.Size(), info.ModTime()))
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return files
}

// Only the master's own user can read its files, and no value of its environment is stored in them.
func TestStateIsPrivateAndHoldsNoSecret(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-correct-horse"
	h := newHost(t, workers(1, "--log-level=debug")...)
	m := h.launch(programs.master, []string{
		"DATABASE_PASSWORD=" + secret, "HSU_MASTER_LOG_LEVEL=debug", "CREDENTIALS_DIRECTORY=/run/credentials/" + secret,
	})
	m.awaitServing()
	w := h.awaitRunning(1).Workers[0]
	h.ask("a request")

	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", w.PID))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		name, _, _ := strings.Cut(string(entry), "=")
		names[name] = true
	}
	if !names["DATABASE_PASSWORD"] || names["HSU_MASTER_LOG_LEVEL"] || names["CREDENTIALS_DIRECTORY"] {
		t.Errorf("the worker's environment has %v, want the master's without what is the master's alone", names)
	}

	var shown []string
	for _, command := range [][]string{{"state", "dump"}, {"state", "dump", "--json"}, {"status"}, {"worker", "list"}} {
		shown = append(shown, h.cli(command...).stdout)
	}
	m.kill() // it would replace files while they are listed, such as those of a backup
	shown = append(shown, m.log())
	err = filepath.WalkDir(h.state, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			shown = append(shown, string(content))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(shown, func(s string) bool { return strings.Contains(s, secret) }) {
		t.Errorf("a value of the environment is in a dump, a log or the state")
	}
	m = h.start()
	h.awaitRunning(1)
	m.stop()
}

func TestMasterListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	m := h.start()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		network, ok := a.(*net.IPNet)
		if !ok || network.IP.IsLoopback() || network.IP.IsLinkLocalUnicast() {
			continue
		}
		conn, err := net.Dial("tcp", net.JoinHostPort(network.IP.String(), fmt.Sprint(h.port)))
		if err == nil {
			_ = conn.Close()
			t.Errorf("it answers on %s", network.IP)
		} else if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Logf("%s: %v", network.IP, err)
		}
	}
	m.stop()
}

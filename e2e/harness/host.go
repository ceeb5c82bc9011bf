//go:build e2e && linux

package harness

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
)

// Host is a state directory with everything needed to run one master after another on it. A test may change its fields
// before it starts a master.
type Host struct {
	T       *testing.T
	Dir     string                // all files of the test are below it
	State   string                // the state directory, which the first master creates
	Record  string                // directory in which units leave their descendants' PIDs
	Port    int                   // of all masters
	Program string                // the master that Start starts
	Flags   []string              // of every run
	Begin   func(*exec.Cmd) error // starts each master; a test may start them elsewhere, or as another user
	Others  map[int]bool          // processes in Dir that the test itself manages
	masters []*Master
	// Credentials are those of the host's clients; nil means that the port has no TLS.
	Credentials credentials.TransportCredentials
}

// NewHost creates the folders of a host whose masters run with the flags. When the test ends, it removes them, and
// reports and kills each process that the test has left.
func NewHost(t *testing.T, flags ...string) *Host {
	t.Helper()
	dir, err := os.MkdirTemp(Programs.Dir, "h") // a path with the test's name is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	h := &Host{
		T: t, Dir: dir, Program: Programs.Master, Flags: flags, Port: FreePort(t),
		State: filepath.Join(dir, "state"), Record: filepath.Join(dir, "record"),
		Begin: (*exec.Cmd).Start, Others: map[int]bool{},
	}
	if err := os.Mkdir(h.Record, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	return h
}

// Workers returns the flags that run n reference workers, with args.
func Workers(n int, args ...string) []string {
	return WorkersOf(Programs.Worker, n, args...)
}

// Units returns the flags that run one worker for each of the habits of e2e/testdata/unit.
func (h *Host) Units(habits ...string) []string {
	return WorkersOf(Programs.Unit, len(habits), "-as", strings.Join(habits, ","), "-record", h.Record)
}

// WorkersOf returns the flags that run n workers of a program, with args.
func WorkersOf(path string, n int, args ...string) []string {
	flags := []string{"--worker-path", path, "--worker-count", strconv.Itoa(n)}
	for _, a := range args {
		flags = append(flags, "--worker-arg="+a)
	}
	return flags
}

// close kills the processes that the test has left behind, and reports them.
func (h *Host) close() {
	for _, m := range h.masters {
		if m.Running() {
			if !h.T.Failed() {
				h.T.Errorf("the test left master %d running", m.PID)
			}
			m.Kill()
		}
		if out := m.Log(); strings.Contains(out, "panic:") || strings.Contains(out, "\ngoroutine ") ||
			strings.Contains(out, "DATA RACE") {
			h.T.Errorf("master %d crashed by itself:\n%s", m.PID, out)
		} else if Leaked(out) { // also of a master that failed, as the test may have wanted
			h.T.Errorf("master %d ended and had not ended all that it began:\n%s", m.PID, out)
		}
	}
	left := h.Processes()
	if len(left) > 0 && !h.T.Failed() {
		h.T.Errorf("processes are left: %v", left)
	}
	KillAll(h.Processes)
	if h.T.Failed() {
		h.report()
	}
	if err := errors.Join(unmountBelow(h.Dir), os.RemoveAll(h.Dir)); err != nil {
		h.T.Error(err)
	}
}

// report shows the output of the masters and workers.
func (h *Host) report() {
	logs, _ := filepath.Glob(filepath.Join(h.State, "logs", "*.log"))
	for _, m := range h.masters {
		logs = append(logs, m.LogPath)
	}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		const most = 6 << 10
		if len(text) > most {
			text = append([]byte("...\n"), text[len(text)-most:]...)
		}
		h.T.Logf("%s:\n%s", filepath.Base(path), text)
	}
}

// grace is short, because some of these workers use all of it.
const grace = 500 * time.Millisecond

// ShortGrace returns the flags with a grace that a test can wait for.
func ShortGrace(flags []string) []string {
	return append(flags, "--stop-grace", grace.String())
}

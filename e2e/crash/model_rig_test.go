//go:build e2e && linux && (crash || torture)

package crash

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// rig is a state directory with the masters that run on it one after another, for thousands of short trials. Unlike
// [host] it returns errors, so that one failed trial does not end the others, and inspects the processes and files
// itself instead of starting a command for each question.
type rig struct {
	dir, state, notes, record string

	port      int
	program   string         // the program of the workers
	arguments []string       // of the workers
	flags     []string       // of every run
	fromFile  bool           // the masters read a file instead of flags of workers
	further   string         // the rest of the file, in the middle of the unit
	hooks     hooks          // of the unit in the file
	events    *eventCommands // of the file; nil if there are none
	restart   string         // the policy of restarts in the file; one with a large budget if empty
	always    []string       // flags of the runs with a file
	gated     bool           // the last worker is that of another unit, [gate], which the first ones depend on
	watches   string         // the unmanaged units of the file
	scheduled *scheduled     // the unit with a schedule of the file; nil if there is none
	mayWatch  bool           // a change of them was under way

	masters       masters
	admin         admin
	calls         calls
	registrations registrations
	workers       workers
	decoy         *stander

	turn int // the next worker to be ended
	// The lines that trials have written into a log, and when one has truncated it.
	lines  int
	shrunk time.Time
	// before are the workers before the restart of their unit, and agreed is set if a master has agreed to that.
	before map[string]entry
	agreed bool
	// rolls: the last inspection has found a rollout that the next master has to continue.
	rolls bool
	// The state is damaged, or older than the living processes: its records mean nothing until a master has
	// recovered.
	damaged bool
	// The moments of the last recovery, up to the first request after it.
	recovery map[string]int
	underWay sync.WaitGroup // of callers that an operation leaves behind
}

// number reads a number from an environment variable.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		t.Fatalf("%s=%s: want a number", name, text)
	}
	return n
}

// ramDisk holds the states: data that the kernel has survives kill -9 on any medium. Another test covers power
// failures.
const ramDisk = "/dev/shm"

// trialFolder creates the parent folder of all rigs of a test, which is cleaned up however the test ends: in base, or
// where temporary files are if that is empty, or no RAM disk with room.
func trialFolder(t *testing.T, base string) string {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(base, &st); err != nil || st.Type != unix.TMPFS_MAGIC ||
		st.Bavail*uint64(st.Bsize) <= 48<<20 || //nolint:gosec // a block size is positive
		unix.Access(base, unix.W_OK) != nil {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "hsu-e2e")
	if err != nil {
		t.Fatal(err)
	}
	dismiss, err := harness.HireJanitor(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dismiss)
	return dir
}

// newRig creates a rig and its folders.
func newRig(t *testing.T, base string, count int) (*rig, error) {
	dir, err := os.MkdirTemp(base, "r")
	if err != nil {
		return nil, err
	}
	r := &rig{
		dir: dir, state: filepath.Join(dir, "state"), notes: filepath.Join(dir, "notes"),
		record: filepath.Join(dir, "record"), port: harness.FreePort(t), masters: newMasters(dir),
	}
	r.admin = admin(filepath.Join(r.state, "run", "admin.sock"))
	r.calls = newCalls(filepath.Base(dir))
	r.registrations = registrations{
		admin: r.admin, calls: &r.calls, port: harness.FreePort(t), possible: map[string]may{},
	}
	r.workers = newWorkers(r.state, r.notes, count)
	// A script, as for many real workers. It is also small: every master reads the executables of its workers,
	// which would otherwise be much of a trial's cost.
	r.program = filepath.Join(dir, "worker")
	script := "#!/bin/sh\nexec " + harness.Programs.Unit + " \"$@\"\n"
	if err := harness.WriteProgram(r.program, []byte(script)); err != nil {
		return nil, err
	}
	// Short delays, so that no trial waits for them; and no worker fails for good.
	r.flags = []string{"--restart-backoff", "1ms", "--restart-budget", "1000/5m", "--stop-grace", "250ms"}
	for _, folder := range []string{r.masters.faults, r.notes, r.record} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			return nil, err
		}
	}
	if r.calls.conn, err = quickDial("passthrough:///" + harness.Loopback(r.port)); err != nil {
		return nil, err
	}
	return r, nil
}

// launch starts a master, which kills itself at the moment, if one is given.
func (r *rig) launch(at moment) error {
	args := []string{"run", "--state-dir", r.state, "--port", strconv.Itoa(r.port), "--log-format", "json"}
	if r.fromFile {
		if err := r.writeFile(); err != nil {
			return err
		}
		return r.masters.execute(at, append(append(args, r.always...), "--config", r.file()))
	}
	args = append(args, harness.WorkersOf(r.program, cmp.Or(r.workers.configured, r.workers.count), r.arguments...)...)
	return r.masters.execute(at, append(args, r.flags...))
}

func (r *rig) file() string { return filepath.Join(r.dir, "hsu.yaml") }

// writeFile writes the file with the wanted workers. The environment differs with each turn.
func (r *rig) writeFile() error {
	command, err := json.Marshal(append([]string{r.program}, r.arguments...)) // JSON is YAML
	if err != nil {
		return err
	}
	replicas, further := cmp.Or(r.workers.configured, r.workers.count), r.further
	if r.gated {
		replicas--
		further += fmt.Sprintf(`    depends_on: {%s: ready}
  %[1]s:
    command: %s
    health: {type: process}
    start: {settle: %s}
    restart: {backoff: {initial: 1ms}, budget: {restarts: 1000, within: 5m}}
    stop: {grace: 250ms}
`, gate, command, gateSettles)
	}
	restart := cmp.Or(r.restart, "{backoff: {initial: 1ms}, budget: {restarts: 1000, within: 5m}}")
	text := fmt.Sprintf(`units:
  worker:
    command: %s
    replicas: %d
    environment: {TURN: "%d"}
    restart: %s
%s%s%s%s%s`, command, replicas, r.turn, restart, r.hooks.keys(), further, r.watches, r.scheduled.unit(),
		r.events.keys())
	// Atomically: a reload may be under way.
	if err := os.WriteFile(r.file()+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(r.file()+".new", r.file())
}

// report returns the output of the last masters and of all workers.
func (r *rig) report() string {
	var b strings.Builder
	logs := r.masters.lastLogs()
	for i, text := range logs {
		fmt.Fprintf(&b, "-- master %d from the end:\n%s", len(logs)-i, text)
	}
	paths, _ := filepath.Glob(filepath.Join(r.state, "logs", "*.log"))
	for _, path := range paths {
		text, _ := os.ReadFile(path)
		fmt.Fprintf(&b, "-- %s:\n%s", filepath.Base(path), text[max(0, len(text)-2<<10):])
	}
	return b.String()
}

// finish stops everything in an orderly way and checks that nothing is left.
func (r *rig) finish() error {
	if err := r.masters.stop(); err != nil {
		return err
	}
	for _, p := range harness.ProcessesBelow(r.dir, r.state) {
		if r.decoy == nil || p.PID != r.decoy.PID {
			return fmt.Errorf("left behind: %v", p)
		}
	}
	if r.decoy != nil {
		if err := r.decoy.Untouched(); err != nil {
			return err
		}
	}
	return nil
}

// destroy kills all processes of this rig without any checks, and removes its files.
func (r *rig) destroy() {
	r.masters.destroy()
	if r.decoy != nil {
		r.decoy.End()
	}
	if r.registrations.endpoint != nil {
		r.registrations.endpoint.leave()
	}
	harness.KillAll(func() []harness.Process { return harness.ProcessesBelow(r.dir, r.state) })
	_ = r.calls.conn.Close()
	r.workers.disconnect()
	_ = os.RemoveAll(r.dir)
}

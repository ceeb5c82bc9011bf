//go:build e2e && linux

package units

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// numbering is a worker that writes numbered lines, faster than a log of 32 KiB can be kept without rotations.
const numbering = `#!/bin/sh
n=0
while :; do
	i=0
	while [ $i -lt 100 ]; do n=$((n+1)); i=$((i+1)); echo "$n ........................................"; done
	sleep 0.05
done
`

// logsFollower is a "worker logs --follow" that runs.
type logsFollower struct {
	t      *testing.T
	cmd    *exec.Cmd
	lines  *bufio.Scanner
	stderr bytes.Buffer
}

func (s *site) followLogs(args ...string) *logsFollower {
	s.T.Helper()
	args = append([]string{"worker", "logs", "-f", "--state-dir", s.State}, args...)
	f := &logsFollower{t: s.T, cmd: exec.Command(harness.Programs.Master, args...)}
	f.cmd.Env = harness.CleanEnviron()
	f.cmd.Stderr = &f.stderr
	out, err := f.cmd.StdoutPipe()
	if err == nil {
		err = f.cmd.Start()
	}
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() { _ = f.cmd.Process.Kill() })
	f.lines = bufio.NewScanner(out)
	return f
}

// next returns the next line; false if there is none any more.
func (f *logsFollower) next() (string, bool) { ok := f.lines.Scan(); return f.lines.Text(), ok }

// end returns the exit code and standard error.
func (f *logsFollower) end() (int, string) {
	f.t.Helper()
	for more := true; more; {
		_, more = f.next()
	}
	err := f.cmd.Wait()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		f.t.Fatal(err)
	}
	return f.cmd.ProcessState.ExitCode(), f.stderr.String()
}

// numberOf returns the number that a line of a numbering worker begins with; 0 if it is another line.
func numberOf(line string) int {
	number, dots, _ := strings.Cut(line, " ")
	n, err := strconv.Atoi(number)
	if err != nil || len(dots) != 40 {
		return 0
	}
	return n
}

// masterAway is what followers say on stderr when the master has ended.
const masterAway = "no master answers any more; this goes on when one does"

// logLine is a line of "worker logs --json".
type logLine struct{ Worker, Line, Notice string }

func parseLogLine(t *testing.T, text string) logLine {
	t.Helper()
	var line logLine
	if err := json.Unmarshal([]byte(text), &line); err != nil || line.Notice != "" {
		t.Fatalf("%s: %v", text, err)
	}
	return line
}

// The output of two workers is followed over many rotations and four masters, with which the workers go on or start
// anew. The follower gets what is in the logs, and no line is lost or repeated.
func TestWorkerLogsOverRotationsAndMasters(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"count": numbering, "hsu.yaml": `
units:
  count: {kind: managed, command: [./count], replicas: 2, log: {max_size: 32KiB, keep: 1000}, start: {settle: 20ms}}
`})
	m := s.start()
	s.awaitUp(2)
	f := s.followLogs("--json", "-n", "1000000", "count-0", "count-1") // by id: the next master must know them first
	got := map[string][]string{}
	read := func() {
		t.Helper()
		text, ok := f.next()
		if !ok {
			code, stderr := f.end()
			t.Fatalf("it ends with code %d: %s", code, stderr)
		}
		line := parseLogLine(t, text)
		last := 0
		if n := len(got[line.Worker]); n > 0 {
			last = numberOf(got[line.Worker][n-1]) // 0 if an instance begins
		}
		starts := strings.HasSuffix(line.Line, ": started by hsu-master")
		if !starts && numberOf(line.Line) != last+1 {
			t.Fatalf("after line %d of %s comes %s", last, line.Worker, text)
		}
		got[line.Worker] = append(got[line.Worker], line.Line)
	}
	rotations := func(more int) {
		t.Helper()
		first, second := len(s.rotated("count-0")), len(s.rotated("count-1"))
		for len(s.rotated("count-0")) < first+more || len(s.rotated("count-1")) < second+more {
			read()
		}
	}
	rotations(3)
	m.Kill()
	m = s.start()
	rotations(2)
	if r := s.CLI("upgrade"); r.Code != 0 {
		t.Fatalf("upgrade: %+v", r)
	}
	rotations(2)
	if r := s.CLI("detach"); r.Code != 0 {
		t.Fatalf("detach: %+v", r)
	}
	m.WantExit(0)
	m = s.start()
	rotations(2)
	m.Stop() // with the workers
	m = s.start()
	s.awaitUp(2)
	for _, worker := range []string{"count-0", "count-1"} {
		r := s.CLI("worker", "logs", "--json", worker)
		if r.Code != 0 {
			t.Fatalf("%+v", r)
		}
		lines := 0
		for text := range strings.Lines(r.Stdout) {
			want := parseLogLine(t, text).Line
			for lines >= len(got[worker]) {
				read()
			}
			if is := got[worker][lines]; is != want {
				t.Fatalf("line %d of %s is %q, in the log it is %q", lines, worker, is, want)
			}
			lines++
		}
	}
	if err := f.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	code, stderr := f.end()
	if code != -1 || stderr != strings.Repeat("hsu-master: "+masterAway+"\n", 4) {
		t.Errorf("code %d: %s", code, stderr)
	}
	m.Stop()
	s.WantNothingLeft()
}

// Followers that wait for a master can be interrupted, with the same exit code.
func TestInterruptOfFollowersWithoutAMaster(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": `
units:
  quiet: {kind: managed, command: [sleep, "1000000"], start: {settle: 20ms}}
`})
	m := s.start()
	s.awaitUp(1)
	var followers []*harness.Master
	for _, args := range [][]string{{"worker", "logs", "-f", "quiet"}, {"events", "-f"}} {
		f := s.Exec(harness.Programs.Master, nil, append(args, "--state-dir", s.State)...)
		harness.WaitFor(t, "it prints something", func() error {
			if f.Log() == "" {
				return errors.New("it prints nothing")
			}
			return nil
		})
		followers = append(followers, f)
	}
	m.Stop()
	for _, f := range followers {
		harness.WaitFor(t, "it waits for a master", func() error {
			if log := f.Log(); !strings.Contains(log, "hsu-master: "+masterAway) {
				return errors.New(log)
			}
			return nil
		})
		f.Signal(syscall.SIGINT)
		f.WantExit(-1) // by the signal, as it ends while a master runs
	}
	s.WantNothingLeft()
}

// Queries, and those that cannot be answered, with and without a master.
func TestWorkerLogs(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": `
units:
  web:
    kind: managed
    command: [sh, -c, 'echo "of instance $$HSU_WORKER_ID"; printf "\\033[31mred\\n"; exec sleep 1000']
    replicas: 2
    start: {settle: 20ms}
  away: {kind: managed, command: [sleep, "1000"], log: {to: inherit}, start: {settle: 20ms}}
  other: {kind: unmanaged, discover: {pid_file: /nowhere.pid}}
`})
	m := s.start()
	first := s.await("web-0", "runs", up)
	s.await("web-1", "runs", up)
	s.await("away-0", "runs", up)
	check := func(code int, stdout, stderr string, args ...string) {
		t.Helper()
		got := s.CLI(append([]string{"worker", "logs"}, args...)...)
		if got.Code != code || !strings.Contains(got.Stdout, stdout) || !strings.Contains(got.Stderr, stderr) {
			t.Errorf("worker logs %q: code %d, want %d; %q, want %q; %q, want %q",
				args, got.Code, code, got.Stdout, stdout, got.Stderr, stderr)
		}
	}
	check(0, "of instance web-0\n\x1b[31mred\n", "", "web-0")
	check(0, "web-0 | of instance web-0\n", "", "web", "--grep", "instance")
	check(0, "web-1 | \x1b[31mred\n", "", "web", "-n", "1")
	check(0, `"line":"of instance web-1"}`, "", "--json", "web")
	check(0, "of instance web-0\n", "", "web-0", "--since", "1h")
	check(0, "web-1 | of instance web-1\n", "away-0: its output goes to the output of the master", "--all")
	check(0, "", "other-0: it is unmanaged", "--all")
	check(1, "", "no log can be read", "away")
	check(1, "", `no such worker or unit: "webs" (did you mean "web"?)`, "webs")
	check(1, "", "no output of a previous instance is kept", "web-0", "--previous")
	check(2, "", "name workers or units, or give --all")
	check(2, "", "--all and", "--all", "web")
	check(2, "", "--grep: ", "web", "--grep", "(")
	check(2, "", "--since", "web", "--since", "yesterday")
	check(2, "", "--previous", "web", "-f", "--previous")
	s.KillWorker(first.PID)
	s.await("web-0", "runs again", func(w harness.Worker) bool { return up(w) && w.PID != first.PID })
	check(0, "incarnation 1: started by hsu-master\nof instance web-0\n\x1b[31mred\n", "", "web-0", "--previous")
	m.Kill()
	check(0, "of instance web-0\n", "", "web-0")
	check(0, "", `away-0: it has no log`, "--all")
	check(1, "", `no such worker or unit: "webs" (did you mean "web"?)`, "webs")
	check(3, "", "no master is running", "-f", "web")
	m = s.start()
	m.Stop()
	s.WantNothingLeft()
}

// A client that stops reading keeps neither the workers nor the master from anything.
func TestWorkerLogsOfAStuckClient(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"count": numbering, "hsu.yaml": `
units:
  count: {kind: managed, command: [./count], log: {max_size: 32KiB, keep: 3}, start: {settle: 20ms}}
`})
	m := s.start()
	s.awaitUp(1)
	stuck := s.followLogs("count")
	if _, ok := stuck.next(); !ok {
		t.Fatal(stuck.end())
	}
	numbers := func() (n int) {
		for line := range strings.Lines(s.CLI("worker", "logs", "count-0", "-n", "1").Stdout) {
			n = numberOf(strings.TrimSuffix(line, "\n"))
		}
		return n
	}
	before := numbers()
	harness.WaitFor(t, "the worker goes on", func() error {
		if n := numbers(); n < before+5_000 {
			return fmt.Errorf("it is at line %d, after %d", n, before)
		}
		return nil
	})
	m.Stop() // at once, although a client is connected
	_ = stuck.cmd.Process.Kill()
	stuck.end()
	s.WantNothingLeft()
}

// A follower of a unit gets the workers that a scale adds. It ends with the reader of its output, although no worker
// writes any more, and so does a follower of events.
func TestFollowersOfWhatComesLater(t *testing.T) {
	t.Parallel()
	const quiet = "#!/bin/sh\necho I am $HSU_WORKER_ID\nexec sleep 1000000\n"
	s := newSite(t, map[string]string{"quiet": quiet, "hsu.yaml": `
units:
  quiet: {kind: managed, command: [./quiet], start: {settle: 20ms}}
`})
	m := s.start()
	s.awaitUp(1)
	f := s.followLogs("quiet")
	await := func(want string) {
		t.Helper()
		for {
			line, ok := f.next()
			if !ok {
				t.Fatal(f.end())
			}
			if line == want {
				return
			}
		}
	}
	await("quiet-0 | I am quiet-0")
	if r := s.CLI("worker", "scale", "quiet=3"); r.Code != 0 {
		t.Fatalf("scale: %+v", r)
	}
	for range 2 { // in any order
		line, ok := f.next()
		for ok && !strings.Contains(line, "| I am quiet-") {
			line, ok = f.next()
		}
		if line != "quiet-1 | I am quiet-1" && line != "quiet-2 | I am quiet-2" {
			t.Fatalf("%q, %t", line, ok)
		}
	}
	for _, args := range [][]string{{"worker", "logs", "-f", "-n", "0", "quiet"}, {"events", "-f", "-n", "1"}} {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(harness.Programs.Master, append(args, "--state-dir", s.State)...)
		cmd.Env, cmd.Stdout = harness.CleanEnviron(), write
		if err := errors.Join(cmd.Start(), write.Close()); err != nil {
			t.Fatal(err)
		}
		if args[0] == "events" { // it follows
			if _, err := bufio.NewReader(read).ReadString('\n'); err != nil {
				t.Error(err)
			}
		}
		_ = read.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%q without a reader: %v", args, err)
		}
	}
	_ = f.cmd.Process.Kill()
	f.end()
	m.Stop()
	s.WantNothingLeft()
}

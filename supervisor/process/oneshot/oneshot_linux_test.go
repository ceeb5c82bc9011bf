package oneshot

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/process/internal/strays"
)

func TestMain(m *testing.M) {
	process.RunStartHelper()
	os.Exit(strays.Run(m, os.Stderr))
}

func testDeadline() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Minute)
}

// testMasterID is that of all commands of one test run.
var testMasterID = sync.OnceValue(rand.Text)

func leaseHeld(t *testing.T, l *process.Lease) bool {
	t.Helper()
	held, err := process.LeaseHeld(l.Path(), l.ID())
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// runShell runs a script with Run until until returns, or to its end if until is nil.
func runShell(t *testing.T, script string, until func(token string)) Ran {
	t.Helper()
	return runSpec(t, Spec{}, script, until)
}

// runSpec is runShell with more fields of the spec.
func runSpec(t *testing.T, spec Spec, script string, until func(token string)) Ran {
	t.Helper()
	token := t.Name() + "-" + filepath.Base(t.TempDir())
	ctx, cancel := testDeadline()
	defer cancel()
	if until != nil {
		go func() {
			defer cancel()
			until(token)
		}()
	}
	spec.Path, spec.Args = "/bin/sh", []string{"-c", script}
	spec.Env = []string{
		"PATH=" + os.Getenv("PATH"), process.EnvWorkerToken + "=" + token, process.EnvMasterID + "=" + testMasterID(),
	}
	ran, err := Run(ctx, spec, token)
	if err != nil {
		t.Fatal(err)
	}
	return ran
}

func TestRunReturnsTheExitAndTheOutput(t *testing.T) {
	ran := runShell(t, "echo one; echo two >&2; exit 3", nil)
	if want := (identity.Exit{Code: 3, Source: identity.ExitWait}); ran.Exit != want || ran.Cut {
		t.Errorf("it ended with %+v, want %+v", ran, want)
	}
	if got := string(ran.Output); got != "one\ntwo\n" {
		t.Errorf("output = %q, want both lines", got)
	}
}

func TestRunThatCannotStart(t *testing.T) {
	spec := Spec{Spec: process.Spec{Path: filepath.Join(t.TempDir(), "none")}}
	if _, err := Run(t.Context(), spec, "token"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Run: %v, want that the file does not exist", err)
	}
}

// awaitHolders returns when n processes carry the token.
func awaitHolders(t *testing.T, token string, n int) {
	t.Helper()
	awaitTrue(t, fmt.Sprintf("%d processes are there", n), func() bool {
		found := 0
		holders, err := process.Scan(t.Context())
		for _, h := range holders {
			if h.Token == token {
				found++
			}
		}
		return err == nil && found >= n
	})
}

// awaitTrue polls until the condition holds.
func awaitTrue(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("never came true: %s", what)
			return
		}
	}
}

func TestRunKillsTheWholeFamilyAtTheEndOfItsContext(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	script := "sleep 1000 & echo $! >>" + pids + "; setsid sleep 1000 & echo $! >>" + pids + "; wait"
	ran := runShell(t, script, func(token string) {
		awaitHolders(t, token, 3)
		awaitTrue(t, "both PIDs are written", func() bool { return len(pidsIn(t, pids)) == 2 })
	})
	if !ran.Cut || ran.At.IsZero() {
		t.Errorf("it ended with %+v, want it cut off", ran)
	}
	wantGone(t, pids, 2)
}

func TestRunKillsWhatACommandLeavesBehind(t *testing.T) {
	for name, script := range map[string]string{
		"in the background": "sleep 1000 >/dev/null 2>&1 & echo $! >PIDS",
		"in a session":      "setsid sleep 1000 & echo $! >PIDS",
		"without environment": "env -i sleep 1000 >/dev/null 2>&1 & echo $! >PIDS; " +
			// Until then it has the token.
			"while tr '\\0' '\\n' </proc/$!/environ | grep -q TOKEN; do :; done",
	} {
		t.Run(name, func(t *testing.T) {
			pids := filepath.Join(t.TempDir(), "pids")
			ran := runShell(t, strings.ReplaceAll(script, "PIDS", pids), nil)
			if !ran.Exit.Clean() || ran.Cut {
				t.Errorf("it ended with %+v, want success", ran)
			}
			wantGone(t, pids, 1)
		})
	}
}

// wantGone checks that the n processes whose PIDs are in the file have ended. One that has cleared its environment was
// killed with its group, and nobody has waited for its end.
func wantGone(t *testing.T, file string, n int) {
	t.Helper()
	pids := pidsIn(t, file)
	if len(pids) != n {
		t.Fatalf("PIDs = %q, want %d", pids, n)
	}
	for _, pid := range pids {
		awaitTrue(t, "process "+pid+" is gone", func() bool {
			line, err := os.ReadFile("/proc/" + pid + "/cmdline")
			return err != nil || !bytes.Contains(line, []byte("sleep"))
		})
	}
}

func pidsIn(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

func TestRunKeepsTheEndOfEndlessOutput(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	passed := filepath.Join(t.TempDir(), "passed")
	ran := runShell(t, "i=0; while :; do i=$((i+1)); echo line $i; [ $i != 20000 ] || : >"+passed+"; done",
		func(string) {
			awaitTrue(t, "the lines are written", func() bool {
				_, err := os.Stat(passed)
				return err == nil || ctx.Err() != nil
			})
		})
	if len(ran.Output) != OutputKept || !ran.Cut {
		t.Errorf("%d bytes of output, cut off: %t; want %d", len(ran.Output), ran.Cut, OutputKept)
	}
	// How many lines it wrote after that one depends on the load of the machine.
	_, whole, _ := bytes.Cut(ran.Output, []byte("\nline "))
	number, _, _ := bytes.Cut(whole, []byte("\n"))
	if n, err := strconv.Atoi(string(number)); err != nil || n < 19_000 {
		t.Errorf("output = %q..., want its end", ran.Output[:min(40, len(ran.Output))])
	}
}

func TestTailKeepsTheLastBytesInOrder(t *testing.T) {
	var all []byte
	var kept tail
	for i := range 300 {
		chunk := bytes.Repeat([]byte{byte(i)}, (i*37)%(OutputKept+100))
		all = append(all, chunk...)
		if n, err := kept.Write(chunk); n != len(chunk) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
		if want := all[max(0, len(all)-OutputKept):]; !bytes.Equal(kept.bytes(), want) {
			t.Fatalf("after chunk %d the tail differs", i)
		}
	}
}

// openOutput opens a file for the output of commands.
func openOutput(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "output"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestRunAppendsOutputToAFile(t *testing.T) {
	f := openOutput(t)
	for _, script := range []string{"echo one; echo two >&2", "seq 100000", "echo three"} {
		ran := runSpec(t, Spec{Spec: process.Spec{Output: f}}, script, nil)
		if !ran.Exit.Clean() || len(ran.Output) != 0 {
			t.Errorf("%s: it ended with %+v, want its output in the file only", script, ran)
		}
	}
	text, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) != 100004 || lines[1] != "two" || lines[2] != "1" || lines[100002] != "three" {
		t.Errorf("%d lines of output, want each once and in order", len(lines))
	}
}

// A daemon usually closes all descriptors, so no pipe tells of it.
func TestRunWithAFileKillsADaemonThatHoldsNoDescriptor(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	script := "setsid sh -c 'exec </dev/null >/dev/null 2>&1 3>&-; echo $$ >PIDS; exec sleep 1000' & " +
		"while [ ! -s PIDS ]; do sleep 0.01; done"
	script = strings.ReplaceAll(script, "PIDS", pids)
	if ran := runSpec(t, Spec{Spec: process.Spec{Output: openOutput(t)}}, script, nil); !ran.Exit.Clean() {
		t.Errorf("it ended with %+v, want success", ran)
	}
	wantGone(t, pids, 1)
}

// A command that has to end gets SIGTERM first if there is patience for it, and SIGKILL at its end.
func TestRunHasPatience(t *testing.T) {
	for name, c := range map[string]struct {
		spec   Spec
		onTerm string // what the command does at SIGTERM
		rolled bool   // it has done that to the end
	}{
		"none":           {Spec{}, "echo rolled back; exit 1", false},
		"enough":         {Spec{Patience: time.Minute}, "sleep 0.2; echo rolled back; exit 1", true},
		"too little":     {Spec{Patience: time.Millisecond}, "sleep 1000; echo rolled back", false},
		"no time at all": {Spec{Patience: time.Hour, Hurry: closedChannel()}, "sleep 1000; echo rolled back", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.spec.Output = openOutput(t)
			begun := filepath.Join(t.TempDir(), "begun")
			script := "trap '" + c.onTerm + "' TERM; : >" + begun + "; while :; do sleep 0.01; done"
			ran := runSpec(t, c.spec, script, func(string) {
				awaitTrue(t, "the command has begun", func() bool {
					_, err := os.Stat(begun)
					return err == nil || t.Context().Err() != nil
				})
			})
			text, err := os.ReadFile(c.spec.Output.Name())
			if got := strings.Contains(string(text), "rolled back"); err != nil || !ran.Cut || got != c.rolled {
				t.Errorf("%+v, output %q, %v: want it rolled back: %t", ran, text, err, c.rolled)
			}
		})
	}
}

func closedChannel() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// newLease returns a lease that is free until a command is run with it.
func newLease(t *testing.T) *process.Lease {
	t.Helper()
	l, err := process.CreateLease(filepath.Join(t.TempDir(), "lease"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	if leaseHeld(t, l) {
		t.Error("the lease is held before it is used")
	}
	return l
}

func TestRunHoldsItsLeaseWhileItRuns(t *testing.T) {
	l := newLease(t)
	ran := runSpec(t, Spec{Spec: process.Spec{Lease: l, Output: openOutput(t)}}, "sleep 1000", func(token string) {
		awaitHolders(t, token, 1)
		awaitTrue(t, "the lease is held", func() bool { return leaseHeld(t, l) })
	})
	if !ran.Cut {
		t.Errorf("it ended with %+v, want it cut off", ran)
	}
	if leaseHeld(t, l) {
		t.Error("the lease is held when the command has ended")
	}
}

// A process that has neither the environment nor the session of its command still has the lease.
func TestRunWithALeaseKillsADaemonWithoutEnvironment(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	script := "env -i /usr/bin/setsid /bin/sh -c 'echo $$ >" + pids + "; exec sleep 1000' >/dev/null 2>&1 & " +
		"while [ ! -s " + pids + " ]; do sleep 0.01; done"
	l := newLease(t)
	rights, err := process.Attributes{}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	spec := Spec{Spec: process.Spec{Lease: l, Output: openOutput(t), Rights: rights}}
	if ran := runSpec(t, spec, script, nil); !ran.Exit.Clean() {
		t.Errorf("it ended with %+v, want success", ran)
	}
	wantGone(t, pids, 1)
	if leaseHeld(t, l) {
		t.Error("the lease is held")
	}
}

// A reader's lock lasts for an instant.
func TestRunWaitsForALeaseThatIsReadNow(t *testing.T) {
	l := newLease(t)
	fd, err := unix.Open(l.Path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Flock(fd, unix.LOCK_SH)
	}
	if err != nil {
		t.Fatal(err)
	}
	begin := make(chan struct{})
	go func() {
		close(begin)
		time.Sleep(20 * time.Millisecond) // the time for which the reader holds it is the case
		_ = unix.Close(fd)
	}()
	<-begin
	if ran := runSpec(t, Spec{Spec: process.Spec{Lease: l}}, "exit 0", nil); !ran.Exit.Clean() {
		t.Errorf("it ended with %+v, want success", ran)
	}
}

func TestHelperKeepsWhatStartPromises(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	const text = "#!/bin/sh\npwd\necho \"$0 $*\"\nenv\nls -l /proc/$$/fd\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	read := func(r process.Rights) string {
		ctx, cancel := testDeadline()
		defer cancel()
		ran, err := Run(ctx, Spec{Spec: process.Spec{
			Path: "./script", Args: []string{"a", "", "b c"}, Dir: dir, Rights: r,
			Env: []string{"X=1", "GOMAXPROCS=1", "PATH=/bin:/usr/bin"},
		}}, "")
		if err != nil || !ran.Exit.Clean() {
			t.Fatalf("%+v, %v", ran, err)
		}
		var lines []string // without what differs between any two starts
		for line := range strings.Lines(string(ran.Output)) {
			if _, link, isLink := strings.Cut(line, " -> "); isLink && strings.HasPrefix(link, "pipe:") {
				line = line[strings.LastIndex(strings.TrimSuffix(line, " -> "+link), " "):len(line)-len(link)] + "pipe"
			} else if isLink {
				line = link
			}
			lines = append(lines, line)
		}
		return strings.Join(lines, "")
	}
	helped := process.Rights{Attributes: process.Attributes{Umask: new(uint32(0o22))}}
	if plain, got := read(process.Rights{}), read(helped); got != plain {
		t.Errorf("by a helper:\n%s\nwithout:\n%s", got, plain)
	}
}

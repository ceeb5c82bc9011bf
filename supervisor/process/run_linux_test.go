package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
)

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
		"PATH=" + os.Getenv("PATH"), EnvWorkerToken + "=" + token, EnvMasterID + "=" + testMaster(),
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
	if _, err := Run(t.Context(), Spec{Path: filepath.Join(t.TempDir(), "none")}, "token"); !errors.Is(err,
		fs.ErrNotExist) {
		t.Errorf("Run: %v, want that the file does not exist", err)
	}
}

// awaitHolders returns when n processes carry the token.
func awaitHolders(t *testing.T, token string, n int) {
	t.Helper()
	awaitTrue(t, fmt.Sprintf("%d processes are there", n), func() bool {
		found := 0
		holders, err := Scan(t.Context())
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
		if ran := runSpec(t, Spec{Output: f}, script, nil); !ran.Exit.Clean() || len(ran.Output) != 0 {
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
	if ran := runSpec(t, Spec{Output: openOutput(t)}, script, nil); !ran.Exit.Clean() {
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
func newLease(t *testing.T) *Lease {
	t.Helper()
	l, err := CreateLease(filepath.Join(t.TempDir(), "lease"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	if leaseHeld(t, l.Path(), l.ID()) {
		t.Error("the lease is held before it is used")
	}
	return l
}

func TestRunHoldsItsLeaseWhileItRuns(t *testing.T) {
	l := newLease(t)
	ran := runSpec(t, Spec{Lease: l, Output: openOutput(t)}, "sleep 1000", func(token string) {
		awaitHolders(t, token, 1)
		awaitTrue(t, "the lease is held", func() bool { return leaseHeld(t, l.Path(), l.ID()) })
	})
	if !ran.Cut {
		t.Errorf("it ended with %+v, want it cut off", ran)
	}
	if leaseHeld(t, l.Path(), l.ID()) {
		t.Error("the lease is held when the command has ended")
	}
}

// A process that has neither the environment nor the session of its command still has the lease.
func TestRunWithALeaseKillsADaemonWithoutEnvironment(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	script := "env -i /usr/bin/setsid /bin/sh -c 'echo $$ >" + pids + "; exec sleep 1000' >/dev/null 2>&1 & " +
		"while [ ! -s " + pids + " ]; do sleep 0.01; done"
	l := newLease(t)
	rights, err := Attributes{}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	if ran := runSpec(t, Spec{Lease: l, Output: openOutput(t), Rights: rights}, script, nil); !ran.Exit.Clean() {
		t.Errorf("it ended with %+v, want success", ran)
	}
	wantGone(t, pids, 1)
	if leaseHeld(t, l.Path(), l.ID()) {
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
	if ran := runSpec(t, Spec{Lease: l}, "exit 0", nil); !ran.Exit.Clean() {
		t.Errorf("it ended with %+v, want success", ran)
	}
}

// A program that reads its input before that is written must wait for it, and not get EAGAIN.
func TestInputBlocks(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	w := prepareWorker(t).start(t, Spec{Args: childArgs("sleep"), Input: read})
	w.expect(t, "ready")
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/0", w.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(info), "flags:\t")
	text, _, _ := strings.Cut(rest, "\n")
	if flags, err := strconv.ParseInt(text, 8, 64); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("flags of stdin are %q (%v), want them without O_NONBLOCK", text, err)
	}
}

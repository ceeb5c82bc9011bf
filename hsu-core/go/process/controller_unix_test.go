//go:build unix && go1.25

package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestDefaults(t *testing.T) {
	if defaultLimits.grace != 30*time.Second {
		t.Errorf("SIGKILL after %v, want 30s", defaultLimits.grace)
	}
	for _, retry := range []time.Duration{0, -time.Second} {
		if got := watchChild(t, retry, fast, "polite").retryPeriod; got != 10*time.Second {
			t.Errorf("retryPeriod %v restarts after %v, want 10s", retry, got)
		}
	}
}

func TestFirstStartFails(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("no program"), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		want       error
	}{
		{"missing", filepath.Join(dir, "missing"), fs.ErrNotExist},
		{"not executable", plain, fs.ErrPermission},
		{"a folder", dir, fs.ErrPermission},
		{"empty", "", nil},
	} {
		c2, err := NewController(c.path, nil, 0, ControllerLogConfig{})
		if err == nil || c2 != nil || c.want != nil && !errors.Is(err, c.want) ||
			!strings.Contains(err.Error(), c.path) {
			t.Errorf("%s: NewController = %v, %v, want nil and an error with the path and %v", c.name, c2, err, c.want)
		}
	}
	if info, err := os.Stat(plain); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode is now %v, %v, want it unchanged", info.Mode(), err)
	}
}

func TestFileModeIsNotChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "script")
	syscall.ForkLock.RLock() // a process started now would inherit the open file: "text file busy"
	err := os.WriteFile(path, []byte("#!/bin/sh\necho ran\n"), 0o500)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	w := watch(t, path, nil, 10*time.Millisecond, fast)
	next(t, w.lines, "ran")
	next(t, w.lines, "ran")
	w.Stop()
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o500 {
		t.Errorf("mode is now %v, %v, want it unchanged", info.Mode(), err)
	}
}

// link creates a link from path to this test binary.
func link(t *testing.T, path string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
}

func TestSurroundingsAndOutput(t *testing.T) {
	// Use another directory than this one, and a relative path: the process's directory is not the test's.
	dir := t.TempDir()
	link(t, filepath.Join(dir, "unit"))
	t.Chdir(filepath.Dir(dir))
	relative := filepath.Join(".", filepath.Base(dir), "unit")
	w := watch(t, relative, []string{"child", "printer", "two words", "%s", ""}, time.Hour, fast)
	next(t, w.events, "warn: ") // it has ended
	w.Stop()
	close(w.lines)

	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		dir, `["two words" "%s" ""]`, "true", "100% %s %d %!", "from stderr", "", "windows",
		strings.Repeat("x", longLine), "no end",
	}
	for i := 0; ; i++ {
		line, ok := <-w.lines
		if !ok {
			if i != len(want) {
				t.Errorf("%d lines, want %d", i, len(want))
			}
			return
		}
		if i >= len(want) || line != want[i] {
			t.Errorf("line %d of %d bytes is %.40q", i, len(line), line)
		}
	}
}

func TestModuleStandsBeforeTheMessages(t *testing.T) {
	lines := make(chan string, 1000)
	config := ControllerLogConfig{Module: "100%s"}
	config.Funcs.Debugf = func(format string, args ...any) { lines <- fmt.Sprintf(format, args...) }
	c, err := NewController(os.Args[0], []string{"child", "polite"}, 0, config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	next(t, lines, "100%s: polite ")
}

// The retry period precedes every restart: after success, failure and death by a signal alike.
func TestRestartsAfterTheRetryPeriod(t *testing.T) {
	const retry = 150 * time.Millisecond
	t.Run("exits", func(t *testing.T) {
		t.Parallel()
		for _, code := range []string{"0", "1"} {
			w := watchChild(t, retry, fast, "exit", code)
			for range 3 {
				ended, err := strconv.ParseInt(next(t, w.lines, "ended "), 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				next(t, w.lines, "exit ")
				if waited := time.Since(time.Unix(0, ended)); waited < retry {
					t.Errorf("exit code %s: next one runs %v after the end, want at least %v", code, waited, retry)
				}
			}
			w.Stop()
		}
	})
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		w := watchChild(t, retry, fast, "polite")
		for range 2 {
			pid := nextNumber(t, w.lines, "polite ")
			killed := time.Now()
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			again := nextNumber(t, w.lines, "polite ")
			if waited := time.Since(killed); waited < retry || again == pid {
				t.Errorf("process %d runs %v after %d was killed, want another one after %v", again, waited, pid, retry)
			}
			if err := syscall.Kill(again, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("start fails", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "unit")
		link(t, path)
		w := watch(t, path, []string{"child", "polite"}, retry, fast)
		pid := nextNumber(t, w.lines, "polite ")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			next(t, w.events, "error: ")
			if waited := time.Since(begin); waited < time.Duration(i+1)*retry {
				t.Errorf("try %d after %v, want one every %v", i+1, waited, retry)
			}
		}
		link(t, path)
		next(t, w.lines, "polite ")
	})
}

func TestStopIsIdempotentAndBlocks(t *testing.T) {
	w := watchChild(t, time.Millisecond, gentle, "slow")
	pid := nextNumber(t, w.lines, "slow ")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			w.Stop()
			wantGone(t, "stopped one", pid)
		})
	}
	wg.Wait()
	w.Stop()
	next(t, w.lines, "slow ends") // it got SIGTERM, not SIGKILL
	select {
	case line := <-w.lines:
		t.Errorf("runs again after Stop: %s", line)
	default:
	}
}

func TestStopWhileItWaitsForARestart(t *testing.T) {
	w := watchChild(t, time.Hour, defaultLimits, "exit", "3")
	if got := next(t, w.events, "warn: "); !strings.Contains(got, "exit status 3") {
		t.Errorf("logged %q, want the exit code", got)
	}
	begin := time.Now()
	w.Stop()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("Stop took %v with nothing to stop", took)
	}
}

func TestStopKillsAGroupThatIgnoresSIGTERM(t *testing.T) {
	t.Run("the leader", func(t *testing.T) {
		t.Parallel()
		w := watchChild(t, time.Millisecond, fast, "deaf")
		pid := nextNumber(t, w.lines, "deaf ")
		begin := time.Now()
		w.Stop()
		wantGone(t, "deaf one", pid)
		if took := time.Since(begin); took < fast.grace {
			t.Errorf("killed after %v, want after %v", took, fast.grace)
		}
	})
	t.Run("its child", func(t *testing.T) {
		t.Parallel()
		w := watchChild(t, time.Millisecond, fast, "parent", "deaf")
		leader := nextNumber(t, w.lines, "parent ")
		deaf := nextNumber(t, w.lines, "deaf ")
		begin := time.Now()
		w.Stop()
		wantGone(t, "leader", leader)
		wantGone(t, "deaf child", deaf)
		if took := time.Since(begin); took < fast.grace {
			t.Errorf("killed after %v, want after %v", took, fast.grace)
		}
	})
	t.Run("stopped by SIGSTOP", func(t *testing.T) {
		t.Parallel()
		w := watchChild(t, time.Millisecond, fast, "polite")
		pid := nextNumber(t, w.lines, "polite ")
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		w.Stop()
		wantGone(t, "stopped one", pid)
	})
}

// A leader that exits immediately must not cost its children their grace.
func TestStopLetsTheWholeGroupEnd(t *testing.T) {
	w := watchChild(t, time.Millisecond, gentle, "parent", "slow")
	slow := nextNumber(t, w.lines, "slow ")
	w.Stop()
	wantGone(t, "slow child", slow)
	next(t, w.lines, "slow ends")
}

func TestRestOfTheGroupIsKilledBeforeARestart(t *testing.T) {
	w := watchChild(t, 50*time.Millisecond, fast, "leaver", "deaf")
	first := nextNumber(t, w.lines, "child ")
	next(t, w.lines, "leaver ")
	wantGone(t, "child of the first leaver", first)
	last := nextNumber(t, w.lines, "child ")
	w.Stop()
	wantGone(t, "child of the last leaver", last)
}

// A process that has left the group is out of reach, but must not block Stop by holding the output open.
func TestStopDoesNotWaitForAForeignHolderOfTheOutput(t *testing.T) {
	l := fast
	l.drain = 200 * time.Millisecond
	w := watchChild(t, time.Millisecond, l, "emigrant")
	emigrant := nextNumber(t, w.lines, "emigrant ")
	holder := nextNumber(t, w.lines, "holder ")
	defer func() {
		if err := syscall.Kill(holder, syscall.SIGKILL); err != nil {
			t.Errorf("kill the holder: %v", err)
		}
	}()
	w.Stop()
	wantGone(t, "emigrant", emigrant)
	if !alive(holder) {
		t.Error("the process outside the group is gone")
	}
}

//go:build unix

package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/core-tools/hsu-core/go/logging"
)

// If its first argument is "child", this test binary is a process to control.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "child" {
		beChild(os.Args[2], os.Args[3:])
		return
	}
	// A program with the race detector sleeps for a second before it exits.
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	os.Exit(m.Run())
}

const longLine = 3<<20 + 1

// beChild prints its role and its PID, then plays the role.
func beChild(role string, args []string) {
	terminated := make(chan os.Signal, 1)
	switch role {
	case "deaf", "holder": // before any process can know the PID
		signal.Ignore(syscall.SIGTERM)
	case "polite", "slow":
		signal.Notify(terminated, syscall.SIGTERM)
	}
	if role != "printer" {
		fmt.Println(role, os.Getpid())
	}

	switch role {
	case "exit": // CODE
		code, _ := strconv.Atoi(args[0])
		fmt.Println("ended", time.Now().UnixNano())
		os.Exit(code)
	case "printer": // TEXT...
		wd, _ := os.Getwd()
		fmt.Println(wd)
		fmt.Printf("%q\n", args)
		fmt.Println(syscall.Getpgrp() == os.Getpid())
		_, _ = os.Stdout.WriteString("100% %s %d %!\n")
		fmt.Fprintln(os.Stderr, "from stderr")
		fmt.Print("\n")
		fmt.Print("windows\r\n")
		fmt.Println(strings.Repeat("x", longLine))
		fmt.Print("no end")
	case "polite", "slow":
		<-terminated
		if role == "slow" {
			time.Sleep(200 * time.Millisecond) // part of the role, not a wait of a test
		}
		fmt.Println(role, "ends")
	case "parent", "leaver": // ROLE: starts a child of that role in its group; the leaver then ends
		child(args[0], nil)
		if role == "parent" {
			sleepForever()
		}
	case "emigrant": // its child leaves the group and keeps the output open
		child("holder", &syscall.SysProcAttr{Setsid: true})
		sleepForever()
	default:
		sleepForever()
	}
}

func sleepForever() {
	// Limited, so that a killed test does not leave it behind.
	time.Sleep(2 * time.Minute)
}

// child starts a child of this child, by default in the same group.
func child(role string, attr *syscall.SysProcAttr) {
	cmd := exec.Command(os.Args[0], "child", role)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = os.Stdout, os.Stderr, attr
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	fmt.Println("child", cmd.Process.Pid)
}

// watched is a Controller with everything that it logged.
type watched struct {
	*controller
	lines  chan string // of the process
	events chan string // "info: …", "warn: …", "error: …"
}

// fast has a short grace, but a long wait for the rest of the output: a loaded machine may need it, and it ends as
// soon as no process holds the output.
var fast = limits{grace: 200 * time.Millisecond, kill: 10 * time.Second, drain: time.Minute}

// gentle has the default grace, and as long a wait for the output as fast.
var gentle = limits{grace: defaultLimits.grace, kill: fast.kill, drain: fast.drain}

func watch(t *testing.T, path string, args []string, retry time.Duration, l limits) *watched {
	t.Helper()
	w := &watched{lines: make(chan string, 1000), events: make(chan string, 1000)}
	to := func(c chan string, prefix string) logging.LogFunc {
		return func(format string, args ...any) { c <- prefix + fmt.Sprintf(format, args...) }
	}
	c, err := newController(path, args, retry, ControllerLogConfig{Funcs: logging.LogFuncs{
		Debugf: to(w.lines, ""), Infof: to(w.events, "info: "),
		Warnf: to(w.events, "warn: "), Errorf: to(w.events, "error: "),
	}}, l)
	if err != nil {
		t.Fatal(err)
	}
	w.controller = c
	t.Cleanup(c.Stop)
	return w
}

// watchChild controls this test binary in a role.
func watchChild(t *testing.T, retry time.Duration, l limits, role ...string) *watched {
	t.Helper()
	return watch(t, os.Args[0], append([]string{"child"}, role...), retry, l)
}

// next returns the next line that begins with prefix, without the prefix, and skips other lines.
func next(t *testing.T, c <-chan string, prefix string) string {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case line := <-c:
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return rest
			}
		case <-late:
			t.Fatalf("no line %q came", prefix)
		}
	}
}

func nextNumber(t *testing.T, c <-chan string, prefix string) int {
	t.Helper()
	text := next(t, c, prefix)
	number, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("line %q%s: %v", prefix, text, err)
	}
	return number
}

func alive(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	if runtime.GOOS != "linux" {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func wantGone(t *testing.T, what string, pid int) {
	t.Helper()
	if alive(pid) {
		t.Errorf("the %s, process %d, is alive", what, pid)
	}
}

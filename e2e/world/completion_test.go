//go:build e2e && linux

package world

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// Interactive shells complete commands, flags and the names of a living and of an ended master.
func TestCompletionInShells(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	config := filepath.Join(h.Dir, "c.yaml")
	text := fmt.Sprintf("units:\n  shop: {command: [%s], replicas: 2}\n", harness.Programs.Worker)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Flags = []string{"--config", config}
	m := h.Start()
	h.AwaitRunning(2)
	cases := []struct{ name, typed, want string }{
		{"a command", "det\t--no-w\t", "<detach><--no-wait>"},
		{"a flag", "upg\t--no-w\t", "<upgrade><--no-wait>"},
		{"a unit", "worker sca\tsh\t3", "<worker><scale><shop=3>"},
		{"the value of a flag", "run --config " + h.Dir + "/c.y\t", "<run><--config><" + config + ">"},
		{"a service", "service deregister proto.MyB\t", "<service><deregister><proto.MyBusinessService>"},
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		t.Run(shell, func(t *testing.T) {
			harness.NeedDebian(t, shell, shell, "--version")
			for _, c := range cases {
				completes(t, h, shell, c.typed, c.want)
			}
		})
	}
	if r := h.CLI("down"); r.Code != 0 {
		t.Errorf("down: %+v", r)
	}
	m.WantExit(0)
	completes(t, h, "bash", "worker scale sh\t3", "<worker><scale><shop=3>")
	h.WantNothingLeft()
}

// settings make a shell complete without any settings of this machine.
var settings = map[string]struct {
	args []string
	init string
}{
	"bash": {[]string{"--norc", "--noprofile", "-i"}, "source <(hsu-master completion bash)"},
	"zsh":  {[]string{"-f", "-i"}, "autoload -Uz compinit; compinit -u -D; source <(hsu-master completion zsh)"},
	"fish": {[]string{"--no-config", "-i"}, "hsu-master completion fish | source"},
}

// completes types a line into the shell, and compares the arguments of the command that the shell then runs.
func completes(t *testing.T, h *harness.Host, shell, typed, want string) {
	t.Helper()
	dir := t.TempDir()
	got := filepath.Join(dir, "got")
	program := fmt.Sprintf(`#!/bin/sh
case $1 in
__complete | completion) exec %s "$@" ;;
ready) echo ready >>%s ;;
*) printf '<%%s>' "$@" >%s.new; mv %[3]s.new %[3]s ;;
esac
`, harness.Programs.Master, filepath.Join(dir, "ready"), got)
	if err := harness.WriteProgram(filepath.Join(dir, "hsu-master"), []byte(program)); err != nil {
		t.Fatal(err)
	}
	term := openTerminal(t)
	cmd := exec.Command(shell, settings[shell].args...)
	cmd.Env = append(harness.CleanEnviron(), "PATH="+dir+":"+os.Getenv("PATH"), "TERM=dumb", "HOME="+dir, "PS1=> ",
		"HSU_MASTER_STATE_DIR="+h.State)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = term.shell, term.shell, term.shell
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	term.write(settings[shell].init + "; hsu-master ready\n")
	awaitFile := func(path string) string {
		var text []byte
		harness.WaitFor(t, shell+" runs the command", func() (err error) {
			if text, err = os.ReadFile(path); err != nil {
				return fmt.Errorf("%w; the terminal shows:\n%s", err, term.shown())
			}
			return nil
		})
		return string(text)
	}
	awaitFile(filepath.Join(dir, "ready"))
	// A shell handles the keys after a tab when the completion is over.
	term.write("hsu-master " + typed + "\n")
	if args := awaitFile(got); args != want {
		t.Errorf("%s: %q runs %s, want %s; the terminal shows:\n%s", shell, typed, args, want, term.shown())
	}
}

// terminal is a pseudo-terminal.
type terminal struct {
	t     *testing.T
	shell *os.File // the shell's end
	user  *os.File

	mu  sync.Mutex
	out bytes.Buffer
}

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	shell, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(user.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 200}); err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, shell: shell, user: user}
	var reader sync.WaitGroup
	reader.Go(func() { _, _ = io.Copy(term, user) })
	t.Cleanup(func() {
		_ = shell.Close()
		reader.Wait() // until the last process with the shell's end has ended
		_ = user.Close()
	})
	return term
}

// Write takes the output of the shell.
func (t *terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.out.Write(p)
}

func (t *terminal) shown() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(t.out.String(), "?")
}

func (t *terminal) write(text string) {
	t.t.Helper()
	if _, err := t.user.WriteString(text); err != nil {
		t.t.Fatal(err)
	}
}

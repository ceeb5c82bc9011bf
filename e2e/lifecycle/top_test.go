//go:build e2e && linux

package lifecycle

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// screen is a terminal and its output.
type screen struct {
	t    *testing.T
	ptmx *os.File // the end of the keyboard and the screen
	tty  *os.File // the end of the program

	mu      sync.Mutex
	written bytes.Buffer
}

func newScreen(t *testing.T, width, height uint16) *screen {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ptmx.Close() })
	fd := int(ptmx.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, ptmx: ptmx, tty: tty}
	s.resize(width, height)
	var reading sync.WaitGroup
	reading.Go(func() {
		for buf := make([]byte, 4096); ; {
			n, err := ptmx.Read(buf)
			s.mu.Lock()
			s.written.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		_ = tty.Close() // the last descriptor of it: the reading ends
		reading.Wait()
	})
	return s
}

func (s *screen) resize(width, height uint16) {
	s.t.Helper()
	if err := unix.IoctlSetWinsize(int(s.ptmx.Fd()), unix.TIOCSWINSZ,
		&unix.Winsize{Col: width, Row: height}); err != nil {
		s.t.Fatal(err)
	}
}

// await waits until the text was written after the last await.
func (s *screen) await(text string) {
	s.t.Helper()
	harness.WaitFor(s.t, fmt.Sprintf("%q on the screen", text), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if i := bytes.Index(s.written.Bytes(), []byte(text)); i >= 0 {
			s.written.Next(i + len(text))
			return nil
		}
		return fmt.Errorf("there is %q", s.written.String())
	})
}

func (s *screen) press(keys string) {
	s.t.Helper()
	if _, err := s.ptmx.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

// start runs a program on the terminal.
func (s *screen) start(environ []string, program string, args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.tty, s.tty, s.tty
	cmd.Env = append(harness.CleanEnviron(), environ...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return cmd
}

// settings are those of the terminal.
func (s *screen) settings() unix.Termios {
	s.t.Helper()
	settings, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS)
	if err != nil {
		s.t.Fatal(err)
	}
	return *settings
}

// The table follows keys, the size of the terminal and the next master, and leaves the terminal as it was.
func TestTopOnATerminal(t *testing.T) {
	h := harness.NewHost(t, harness.Workers(3)...)
	m := h.Start()
	h.AwaitRunning(3)
	s := newScreen(t, 80, 24)
	before := s.settings()
	top := []string{"top", "--interval", "1s", "--sort", "name", "--state-dir", h.State}
	cmd := s.start(nil, harness.Programs.Master, top...)
	s.await("3 of 3 workers running, CPU ")
	s.await("\x1b[7mWORKER")
	s.await("worker-2")
	s.press("\x1b[B") // down; and a small terminal shows fewer
	s.resize(80, 4)
	s.await("3 of 3 workers running, 1 shown, ")
	s.await("worker-1")
	m.Kill()
	s.await("no master answers any more; this goes on when one does")
	m = h.Start()
	s.resize(80, 24)
	s.await("\nworker-2")
	h.KillWorker(h.Dump().Worker(t, "worker-2").PID)
	s.press("r")
	s.await("worker-2")
	s.press("q")
	if err := cmd.Wait(); err != nil {
		t.Errorf("after q: %v", err)
	}
	s.await("\x1b[?25h")
	if s.settings() != before {
		t.Errorf("after q the terminal is %+v, it was %+v", s.settings(), before)
	}

	for _, end := range []func(*exec.Cmd){
		func(*exec.Cmd) { s.press("\x03") },
		func(cmd *exec.Cmd) { _ = cmd.Process.Signal(syscall.SIGTERM) },
	} {
		cmd = s.start([]string{"NO_COLOR=1"}, harness.Programs.Master, top...)
		s.await("\nWORKER")
		end(cmd)
		if err := cmd.Wait(); err != nil {
			t.Errorf("after a signal: %v", err)
		}
		s.await("\x1b[?25h")
		if s.settings() != before {
			t.Errorf("after a signal the terminal is %+v, it was %+v", s.settings(), before)
		}
	}
	m.Stop()
	h.WantNothingLeft()
}

// To a file, top prints whole tables without control characters, with the rates of the calls.
func TestTopToAFile(t *testing.T) {
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	h.AwaitRunning(2)
	load := h.StartLoad(2)
	r := h.CLI("top", "-n", "2", "--interval", "1s", "--sort", "calls")
	load.Stop()
	if r.Code != 0 || strings.ContainsRune(r.Stdout, '\x1b') ||
		strings.Count(r.Stdout, "2 of 2 workers running") != 2 || strings.Count(r.Stdout, "\n") != 8 ||
		strings.Contains(r.Stdout, " 0.0 calls/s") {
		t.Errorf("top: %+v", r)
	}
	if r := h.CLI("top", "--sort", "size"); r.Code != 2 {
		t.Errorf("a wrong order: %+v", r)
	}
	m.Stop()
	if r := h.CLI("top"); r.Code != 3 {
		t.Errorf("without a master: %+v", r)
	}
	h.WantNothingLeft()
}

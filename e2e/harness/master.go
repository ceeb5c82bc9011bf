//go:build e2e && linux

package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// Master is one run of hsu-master.
type Master struct {
	Host    *Host
	Cmd     *exec.Cmd
	PID     int
	LogPath string        // its standard output and error
	ended   chan struct{} // closed when it has been waited for
}

// Launch starts a master and does not wait. The folder flags come first, so that flags can override them.
func (h *Host) Launch(program string, environ []string, flags ...string) *Master {
	h.T.Helper()
	return h.Exec(program, environ, h.RunArgs(flags...)...)
}

// RunArgs returns the arguments of a master of this host.
func (h *Host) RunArgs(flags ...string) []string {
	return slices.Concat([]string{
		"run", "--state-dir", h.State, "--port", strconv.Itoa(h.Port), "--log-format", "json",
	}, h.Flags, flags)
}

// Exec starts a program that is a master, or executes one.
func (h *Host) Exec(program string, environ []string, args ...string) *Master {
	h.T.Helper()
	m := &Master{
		Host: h, ended: make(chan struct{}),
		LogPath: filepath.Join(h.Dir, fmt.Sprintf("master-%d.log", len(h.masters)+1)),
	}
	// A file, as a master's output often is. With a pipe, the wait for the master's end would also wait for any
	// process that has inherited the pipe.
	out, err := os.Create(m.LogPath)
	if err != nil {
		h.T.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	m.Cmd = exec.Command(program, args...)
	m.Cmd.Env = append(CleanEnviron(), environ...)
	m.Cmd.Stdout, m.Cmd.Stderr = out, out
	// In its own process group, as from a shell: an interrupt of the test at the terminal must not reach it as a
	// SIGINT.
	m.Cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := h.Begin(m.Cmd); err != nil {
		h.T.Fatal(err)
	}
	m.PID = m.Cmd.Process.Pid
	h.masters = append(h.masters, m)
	go func() {
		defer close(m.ended)
		_ = m.Cmd.Wait()
	}()
	return m
}

// Start starts a master and returns when it is SERVING.
func (h *Host) Start(flags ...string) *Master {
	h.T.Helper()
	m := h.Launch(h.Program, nil, flags...)
	m.AwaitServing()
	return m
}

// Leaked reports whether a program found leaked goroutines or descriptors at its end. All programs that are built
// with crash points check that, see watchLeaks.
func Leaked(stderr string) bool {
	return strings.HasPrefix(stderr, "leak: ") || strings.Contains(stderr, "\nleak: ")
}

// CleanEnviron returns this process's environment without the variables that affect a master.
func CleanEnviron() []string {
	var kept []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "HSU_") && !strings.HasPrefix(entry, "XDG_") {
			kept = append(kept, entry)
		}
	}
	return kept
}

// Running reports whether the process has not ended.
func (m *Master) Running() bool {
	select {
	case <-m.ended:
		return false
	default:
		return true
	}
}

// Log returns the output of the master up to now.
func (m *Master) Log() string {
	text, err := os.ReadFile(m.LogPath)
	if err != nil {
		m.Host.T.Error(err)
	}
	return string(text)
}

// AwaitServing returns when grpc.health.v1 reports SERVING.
func (m *Master) AwaitServing() {
	m.Host.T.Helper()
	client := grpc_health_v1.NewHealthClient(m.Host.Dial())
	WaitFor(m.Host.T, "the master serves", func() error {
		if !m.Running() {
			m.Host.T.Fatalf("the master ended: %v\n%s", m.Cmd.ProcessState, m.Log())
		}
		ctx, cancel := context.WithTimeout(m.Host.T.Context(), time.Second)
		defer cancel()
		answer, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
		if err == nil && answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			err = errors.New(answer.GetStatus().String())
		}
		return err
	})
}

// Signal sends a signal to the master.
func (m *Master) Signal(s syscall.Signal) {
	m.Host.T.Helper()
	if err := m.Cmd.Process.Signal(s); err != nil {
		m.Host.T.Fatal(err)
	}
}

// Kill kills the master with SIGKILL, and returns when the process is gone.
func (m *Master) Kill() {
	m.Host.T.Helper()
	_ = m.Cmd.Process.Kill()
	m.Wait()
}

// Wait waits for the end of the master, and returns the exit code, -1 if a signal ended the master.
func (m *Master) Wait() int {
	m.Host.T.Helper()
	select {
	case <-m.ended:
	case <-time.After(2 * Patience):
		// The stacks show in the log where it hangs.
		_ = m.Cmd.Process.Signal(syscall.SIGQUIT)
		<-m.ended
		m.Host.T.Fatalf("master %d did not end", m.PID)
	}
	return m.Cmd.ProcessState.ExitCode()
}

// Stop is an orderly stop: SIGTERM, exit code 0.
func (m *Master) Stop() {
	m.Host.T.Helper()
	m.Signal(syscall.SIGTERM)
	m.WantExit(0)
}

// WantExit waits for the end of the master, and checks its exit code.
func (m *Master) WantExit(code int) {
	m.Host.T.Helper()
	if got := m.Wait(); got != code {
		m.Host.T.Errorf("the master's exit code is %d, want %d\n%s", got, code, m.Log())
	}
}

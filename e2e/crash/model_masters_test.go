//go:build e2e && linux && (crash || torture)

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// run is one master.
type run struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// over reports whether the process is gone.
func (m *run) over() bool {
	select {
	case <-m.ended:
		return true
	default:
		return false
	}
}

// moment is when a master is killed: the nth time that it passes a point, before or after the act. The zero value
// means never.
type moment struct {
	name string // "before-commit"
	nth  int
}

func (m moment) String() string { return fmt.Sprintf("%s:%d", m.name, m.nth) }

// point returns the crash point of the moment.
func (m moment) point() crashpoint.Point {
	_, name, _ := strings.Cut(m.name, "-")
	return crashpoint.Point(name)
}

// masters runs masters one after another: it starts each, kills it or makes an act fail at a moment, and checks its
// end.
type masters struct {
	dir, faults, trace string

	environ []string // of every run
	secret  string   // in the environment of every run, and nowhere else
	cgroup  string   // of every run, empty for this process's own

	running *run     // nil if there is none
	runs    int      // number of runs
	logs    []string // output of the last runs that have ended
}

func newMasters(dir string) masters {
	return masters{
		dir: dir, faults: filepath.Join(dir, "faults"), trace: filepath.Join(dir, "trace"),
		secret: "hush-" + filepath.Base(dir) + "-7c1f",
	}
}

// execute starts the program with arguments, as the master.
func (ms *masters) execute(at moment, args []string) error {
	if ms.running != nil {
		return errors.New("a master runs already")
	}
	if err := os.Remove(ms.trace); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	ms.runs++
	cmd := exec.Command(harness.Programs.Master, args...)
	cmd.Env = append(harness.CleanEnviron(),
		"MY_SECRET="+ms.secret, "HSU_FAULT_DIR="+ms.faults, "HSU_CRASH_TRACE="+ms.trace)
	cmd.Env = append(cmd.Env, ms.environ...)
	if at != (moment{}) {
		cmd.Env = append(cmd.Env, "HSU_CRASH_POINT="+at.String())
	}
	m := &run{cmd: cmd, log: filepath.Join(ms.dir, fmt.Sprintf("master-%d.log", ms.runs)), ended: make(chan struct{})}
	out, err := os.Create(m.log)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	start := cmd.Start
	if ms.cgroup != "" {
		start = func() error { return harness.StartInCgroup(cmd, ms.cgroup) }
	}
	if err := start(); err != nil {
		return err
	}
	go func() {
		defer close(m.ended)
		_ = cmd.Wait()
	}()
	ms.running = m
	return nil
}

// arm has the running master killed at the moment, counted from now.
func (ms *masters) arm(at moment) error { return ms.fault(at.name, fmt.Sprintf("kill:%d", at.nth)) }

// fault makes the running master fail at the moment or, with an empty text, act normally again.
func (ms *masters) fault(name, text string) error {
	path := filepath.Join(ms.faults, strings.TrimPrefix(name, "before-"))
	if text == "" {
		return os.Remove(path)
	}
	// Atomically: a partial text would be another error.
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// soundAgain removes every fault.
func (ms *masters) soundAgain() error {
	names, err := os.ReadDir(ms.faults)
	for _, n := range names {
		err = errors.Join(err, os.Remove(filepath.Join(ms.faults, n.Name())))
	}
	return err
}

// passed returns the moments that the running master has passed, with the number of times.
func (ms *masters) passed() (map[string]int, error) {
	text, err := os.ReadFile(ms.trace)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	count := map[string]int{}
	for line := range bytes.Lines(text) {
		if name, whole := bytes.CutSuffix(line, []byte{'\n'}); whole {
			count[string(name)]++
		}
	}
	return count, nil
}

// await polls until check returns nil or the master has ended, and reports whether it has ended.
func (ms *masters) await(what string, check func() error) (ended bool, err error) {
	deadline := time.Now().Add(harness.Patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		over := ms.running == nil || ms.running.over()
		err := check()
		switch {
		case err == nil:
			return over, nil
		case over:
			return true, nil
		case time.Now().After(deadline):
			return false, fmt.Errorf("waited %s for: %s: %w", harness.Patience, what, err)
		}
		ms.pause(pause)
	}
}

// pause waits for d, or until the master ends.
func (ms *masters) pause(d time.Duration) {
	if ms.running == nil {
		time.Sleep(d)
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ms.running.ended:
	case <-timer.C:
	}
}

// dies waits for the end of a master whose connection broke, and reports whether it has ended.
func (ms *masters) dies() bool {
	ms.pause(harness.Patience)
	return ms.running.over()
}

// kill kills the master with SIGKILL.
func (ms *masters) kill() error {
	if ms.running == nil {
		return nil
	}
	_ = ms.running.cmd.Process.Kill()
	return ms.buried(true)
}

// buried handles the end of a master that has ended or is about to: killed reports whether it was to be killed or
// to exit with code 0. It checks the master's log.
func (ms *masters) buried(killed bool) error {
	m := ms.running
	select {
	case <-m.ended:
	case <-time.After(harness.Patience):
		_ = m.cmd.Process.Signal(syscall.SIGQUIT) // for its stacks
		<-m.ended
		return fmt.Errorf("the master did not end: %s", ms.readLog(m))
	}
	ms.running = nil
	text := ms.readLog(m)
	status := m.cmd.ProcessState.Sys().(syscall.WaitStatus)
	asWanted := status.Signaled() && status.Signal() == syscall.SIGKILL
	if !killed {
		asWanted = status.Exited() && status.ExitStatus() == 0
	}
	switch {
	case !asWanted:
		return fmt.Errorf("the master ended with %v:\n%s", m.cmd.ProcessState, text)
	case strings.Contains(text, "panic:"), strings.Contains(text, "\ngoroutine "), harness.Leaked(text):
		return fmt.Errorf("the master crashed by itself, or leaks:\n%s", text)
	case strings.Contains(text, ms.secret):
		return fmt.Errorf("the master's log holds a secret:\n%s", text)
	}
	return nil
}

// readLog reads a master's log and removes the file: there are thousands.
func (ms *masters) readLog(m *run) string {
	text, err := os.ReadFile(m.log)
	if err != nil {
		return err.Error()
	}
	_ = os.Remove(m.log)
	const most = 8 << 10
	if ms.logs = append(ms.logs, string(text[max(0, len(text)-most):])); len(ms.logs) > 4 {
		ms.logs = ms.logs[1:]
	}
	return string(text)
}

// stop is an orderly stop of the master.
func (ms *masters) stop() error {
	if err := ms.running.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return ms.buried(false)
}

// destroy kills the running master without any checks.
func (ms *masters) destroy() {
	if ms.running != nil {
		_ = ms.running.cmd.Process.Kill()
		<-ms.running.ended
		ms.running = nil
	}
}

// lastLogs returns the output of the last masters, the running one at the end.
func (ms *masters) lastLogs() []string {
	if ms.running == nil {
		return ms.logs
	}
	text, _ := os.ReadFile(ms.running.log)
	return append(slices.Clone(ms.logs), string(text))
}

// signal sends a signal to an armed master. A commit of something else may have been its moment, and ended it.
func (ms *masters) signal(s syscall.Signal) error {
	if err := ms.running.cmd.Process.Signal(s); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// serves fails until the running master serves.
func (ms *masters) serves() error {
	n, err := ms.passed()
	if err == nil && n["after-serving"] == 0 {
		err = errors.New("it does not serve")
	}
	return err
}

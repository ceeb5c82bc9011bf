//go:build e2e && linux && (crash || torture)

package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/rpc"
)

// rig is a state directory with the masters that run on it one after another, for thousands of short trials. Unlike
// [host] it returns errors, so that one failed trial does not end the others, and inspects the processes and files
// itself instead of starting a command for each question.
type rig struct {
	dir, state, faults, notes, record, trace string

	port      int
	guestPort int      // outside of the ephemeral range: it stays free while the guest is gone for a moment
	count     int      // workers wanted at the next launch
	least     int      // the minimum since the last rest, 0 if equal to count
	program   string   // the program of the workers
	arguments []string // of the workers
	flags     []string // of every run
	environ   []string // of every run
	cgroup    string   // cgroup of the masters, empty for this process's own

	master *run // the running master, nil if there is none
	runs   int
	turn   int      // the next worker to be ended
	logs   []string // output of ended masters
	secret string
	conn   *grpc.ClientConn // to whichever master runs
	own    map[int]*grpc.ClientConn
	calls  calls
	known  known
	// The state is damaged, or older than the living processes: its records mean nothing until a master has
	// recovered.
	damaged bool
	// The moments of the last recovery, up to the first request after it.
	recovery map[string]int
	decoy    *stander
	guest    *guest         // nil if there is none
	outside  map[string]may // its registrations, by service
	underWay sync.WaitGroup // of callers that an operation leaves behind
	// Reports whether a worker dies by itself; nil if none does.
	moody func(worker string) bool
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

// ramDisk holds the states: data that the kernel has survives kill -9 on any medium. Another test covers power
// failures.
const ramDisk = "/dev/shm"

// trialFolder creates the parent folder of all rigs of a test, which is cleaned up however the test ends.
func trialFolder(t *testing.T) string {
	t.Helper()
	base := ""
	var st unix.Statfs_t
	if err := unix.Statfs(ramDisk, &st); err == nil && st.Type == unix.TMPFS_MAGIC &&
		st.Bavail*uint64(st.Bsize) > 48<<20 && //nolint:gosec // a block size is positive
		unix.Access(ramDisk, unix.W_OK) == nil {
		base = ramDisk
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
		dir: dir, state: filepath.Join(dir, "state"), faults: filepath.Join(dir, "faults"),
		notes: filepath.Join(dir, "notes"), record: filepath.Join(dir, "record"), trace: filepath.Join(dir, "trace"),
		port: harness.FreePort(t), guestPort: harness.FreePort(t), count: count,
		own: map[int]*grpc.ClientConn{}, outside: map[string]may{},
		secret: "hush-" + filepath.Base(dir) + "-7c1f",
	}
	r.calls = newCalls(filepath.Base(dir))
	r.known = newKnown()
	// A script, as for many real workers. It is also small: every master reads the executables of its workers,
	// which would otherwise be much of a trial's cost.
	r.program = filepath.Join(dir, "worker")
	script := "#!/bin/sh\nexec " + harness.Programs.Unit + " \"$@\"\n"
	if err := harness.WriteProgram(r.program, []byte(script)); err != nil {
		return nil, err
	}
	// Short delays, so that no trial waits for them; and no worker fails for good.
	r.flags = []string{"--restart-backoff", "1ms", "--restart-budget", "1000/5m", "--stop-grace", "250ms"}
	for _, folder := range []string{r.faults, r.notes, r.record} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			return nil, err
		}
	}
	if r.conn, err = quickDial("passthrough:///" + harness.Loopback(r.port)); err != nil {
		return nil, err
	}
	return r, nil
}

// quickDial makes a connection that reconnects within milliseconds after its server is back.
func quickDial(target string) (*grpc.ClientConn, error) {
	return grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()), rpc.Interceptor(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: time.Millisecond, Multiplier: 1.5, MaxDelay: 10 * time.Millisecond,
			},
			MinConnectTimeout: time.Second,
		}))
}

// launch starts a master, which kills itself at the moment, if one is given.
func (r *rig) launch(at moment) error {
	args := append([]string{
		"run", "--state-dir", r.state, "--port", strconv.Itoa(r.port), "--log-format", "json",
	}, harness.WorkersOf(r.program, r.count, r.arguments...)...)
	return r.execute(at, append(args, r.flags...))
}

// execute starts the program with arguments, as the master.
func (r *rig) execute(at moment, args []string) error {
	if r.master != nil {
		return errors.New("a master runs already")
	}
	if err := os.Remove(r.trace); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	r.runs++
	cmd := exec.Command(harness.Programs.Master, args...)
	cmd.Env = append(harness.CleanEnviron(),
		"MY_SECRET="+r.secret, "HSU_FAULT_DIR="+r.faults, "HSU_CRASH_TRACE="+r.trace)
	cmd.Env = append(cmd.Env, r.environ...)
	if at != (moment{}) {
		cmd.Env = append(cmd.Env, "HSU_CRASH_POINT="+at.String())
	}
	m := &run{cmd: cmd, log: filepath.Join(r.dir, fmt.Sprintf("master-%d.log", r.runs)), ended: make(chan struct{})}
	out, err := os.Create(m.log)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if r.cgroup != "" {
		folder, err := os.Open(r.cgroup)
		if err != nil {
			return err
		}
		defer folder.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(folder.Fd())
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		defer close(m.ended)
		_ = cmd.Wait()
	}()
	r.master = m
	return nil
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

// arm has the running master killed at the moment, counted from now.
func (r *rig) arm(at moment) error { return r.fault(at.name, fmt.Sprintf("kill:%d", at.nth)) }

// fault makes the running master fail at the moment or, with an empty text, act normally again.
func (r *rig) fault(name, text string) error {
	path := filepath.Join(r.faults, strings.TrimPrefix(name, "before-"))
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
func (r *rig) soundAgain() error {
	names, err := os.ReadDir(r.faults)
	for _, n := range names {
		err = errors.Join(err, os.Remove(filepath.Join(r.faults, n.Name())))
	}
	return err
}

// passed returns the moments that the running master has passed, with the number of times.
func (r *rig) passed() (map[string]int, error) {
	text, err := os.ReadFile(r.trace)
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
func (r *rig) await(what string, check func() error) (ended bool, err error) {
	deadline := time.Now().Add(harness.Patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		over := r.master == nil || r.master.over()
		err := check()
		switch {
		case err == nil:
			return over, nil
		case over:
			return true, nil
		case time.Now().After(deadline):
			return false, fmt.Errorf("waited %s for: %s: %w", harness.Patience, what, err)
		}
		r.pause(pause)
	}
}

// pause waits for d, or until the master ends.
func (r *rig) pause(d time.Duration) {
	if r.master == nil {
		time.Sleep(d)
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-r.master.ended:
	case <-timer.C:
	}
}

// dies waits for the end of a master whose connection broke, and reports whether it has ended.
func (r *rig) dies() bool {
	r.pause(harness.Patience)
	return r.master.over()
}

// kill kills the master with SIGKILL.
func (r *rig) kill() error {
	if r.master == nil {
		return nil
	}
	_ = r.master.cmd.Process.Kill()
	return r.buried(true)
}

// buried handles the end of a master that has ended or is about to: killed reports whether it was to be killed or
// to exit with code 0. It checks the master's log.
func (r *rig) buried(killed bool) error {
	m := r.master
	select {
	case <-m.ended:
	case <-time.After(harness.Patience):
		_ = m.cmd.Process.Signal(syscall.SIGQUIT) // for its stacks
		<-m.ended
		return fmt.Errorf("the master did not end: %s", r.readLog(m))
	}
	r.master = nil
	text := r.readLog(m)
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
	case strings.Contains(text, r.secret):
		return fmt.Errorf("the master's log holds a secret:\n%s", text)
	}
	return nil
}

// readLog reads a master's log and removes the file: there are thousands.
func (r *rig) readLog(m *run) string {
	text, err := os.ReadFile(m.log)
	if err != nil {
		return err.Error()
	}
	_ = os.Remove(m.log)
	const most = 8 << 10
	if r.logs = append(r.logs, string(text[max(0, len(text)-most):])); len(r.logs) > 4 {
		r.logs = r.logs[1:]
	}
	return string(text)
}

// report returns the output of the last masters and of all workers.
func (r *rig) report() string {
	var b strings.Builder
	if r.master != nil {
		text, _ := os.ReadFile(r.master.log)
		r.logs = append(r.logs, string(text))
	}
	for i, text := range r.logs {
		fmt.Fprintf(&b, "-- master %d from the end:\n%s", len(r.logs)-i, text)
	}
	paths, _ := filepath.Glob(filepath.Join(r.state, "logs", "*.log"))
	for _, path := range paths {
		text, _ := os.ReadFile(path)
		fmt.Fprintf(&b, "-- %s:\n%s", filepath.Base(path), text[max(0, len(text)-2<<10):])
	}
	return b.String()
}

// stop is an orderly stop of the master.
func (r *rig) stop() error {
	if err := r.master.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return r.buried(false)
}

// finish stops everything in an orderly way and checks that nothing is left.
func (r *rig) finish() error {
	if err := r.stop(); err != nil {
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
	if r.master != nil {
		_ = r.master.cmd.Process.Kill()
		<-r.master.ended
		r.master = nil
	}
	if r.decoy != nil {
		r.decoy.End()
	}
	if r.guest != nil {
		r.guest.leave()
	}
	harness.KillAll(func() []harness.Process { return harness.ProcessesBelow(r.dir, r.state) })
	_ = r.conn.Close()
	for _, conn := range r.own {
		_ = conn.Close()
	}
	_ = os.RemoveAll(r.dir)
}

// brief limits a call that takes milliseconds, or fails.
func brief() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), harness.Patience)
}

// ask asks the running master for its state.
func (r *rig) ask() (*adminpb.State, error) {
	conn, err := quickDial("unix://" + filepath.Join(r.state, "run", "admin.sock"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := brief()
	defer cancel()
	answer, err := adminpb.NewAdminClient(conn).GetState(ctx, &adminpb.GetStateRequest{}, grpc.WaitForReady(true))
	return answer.GetState(), err
}

//go:build e2e && linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/internal/rpc"
)

// patience limits every wait for an event that should take milliseconds. It is long because the machine may be
// loaded; only a failing test waits for all of it.
const patience = 30 * time.Second

// host is a state directory with everything needed to run one master after another on it.
type host struct {
	t       *testing.T
	dir     string // all files of the test are below it
	state   string
	record  string // directory in which units leave their descendants' PIDs
	port    int
	program string   // the master that start starts
	flags   []string // of every run
	masters []*master
	begin   func(*exec.Cmd) error // starts each process; a test may start them elsewhere, or as another user
	others  map[int]bool          // processes in dir that the test itself manages
}

// newHost makes the folders. When the test ends, no process of it may live any more.
func newHost(t *testing.T, flags ...string) *host {
	t.Helper()
	dir, err := os.MkdirTemp(programs.dir, "h") // a path with the test's name is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	h := &host{
		t: t, dir: dir, program: programs.master, flags: flags, port: freePort(t),
		state: filepath.Join(dir, "state"), record: filepath.Join(dir, "record"),
		begin: (*exec.Cmd).Start, others: map[int]bool{},
	}
	if err := os.Mkdir(h.record, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	return h
}

// workers returns the flags that run n reference workers, with args.
func workers(n int, args ...string) []string {
	return workersOf(programs.worker, n, args...)
}

// units returns the flags that run one worker for each of the habits.
func (h *host) units(habits ...string) []string {
	return workersOf(programs.unit, len(habits), "-as", strings.Join(habits, ","), "-record", h.record)
}

func workersOf(path string, n int, args ...string) []string {
	flags := []string{"--worker-path", path, "--worker-count", strconv.Itoa(n)}
	for _, a := range args {
		flags = append(flags, "--worker-arg="+a)
	}
	return flags
}

// close kills the processes that the test has left behind, and reports them.
func (h *host) close() {
	for _, m := range h.masters {
		if m.running() {
			if !h.t.Failed() {
				h.t.Errorf("the test left master %d running", m.pid)
			}
			m.kill()
		}
		if out := m.log(); strings.Contains(out, "panic:") || strings.Contains(out, "\ngoroutine ") ||
			strings.Contains(out, "DATA RACE") {
			h.t.Errorf("master %d crashed by itself:\n%s", m.pid, out)
		} else if leaked(out) { // also of a master that failed, as the test may have wanted
			h.t.Errorf("master %d ended and had not ended all that it began:\n%s", m.pid, out)
		}
	}
	left := h.processes()
	if len(left) > 0 && !h.t.Failed() {
		h.t.Errorf("processes are left: %v", left)
	}
	for deadline := time.Now().Add(patience); len(left) > 0 && time.Now().Before(deadline); left = h.processes() {
		for _, p := range left {
			p.kill()
		}
		time.Sleep(10 * time.Millisecond)
	}
	if h.t.Failed() {
		h.report()
	}
	if err := errors.Join(unmountBelow(h.dir), os.RemoveAll(h.dir)); err != nil {
		h.t.Error(err)
	}
}

// report shows the output of the masters and workers.
func (h *host) report() {
	logs, _ := filepath.Glob(filepath.Join(h.state, "logs", "*.log"))
	for _, m := range h.masters {
		logs = append(logs, m.logPath)
	}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		const most = 6 << 10
		if len(text) > most {
			text = append([]byte("...\n"), text[len(text)-most:]...)
		}
		h.t.Logf("%s:\n%s", filepath.Base(path), text)
	}
}

// master is one run of hsu-master.
type master struct {
	h       *host
	cmd     *exec.Cmd
	pid     int
	logPath string
	ended   chan struct{} // closed when it has been waited for
}

// launch starts a master and does not wait. The folder flags come first, so that flags can override them.
func (h *host) launch(program string, environ []string, flags ...string) *master {
	h.t.Helper()
	return h.execute(program, environ, h.runArgs(flags...)...)
}

func (h *host) runArgs(flags ...string) []string {
	return slices.Concat([]string{
		"run", "--state-dir", h.state, "--port", strconv.Itoa(h.port), "--log-format", "json",
	}, h.flags, flags)
}

func (h *host) execute(program string, environ []string, args ...string) *master {
	h.t.Helper()
	m := &master{
		h: h, ended: make(chan struct{}), logPath: filepath.Join(h.dir, fmt.Sprintf("master-%d.log", len(h.masters)+1)),
	}
	// A file, as a master's output often is. With a pipe, the wait for the master's end would also wait for any
	// process that has inherited the pipe.
	out, err := os.Create(m.logPath)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	m.cmd = exec.Command(program, args...)
	m.cmd.Env = append(cleanEnviron(), environ...)
	m.cmd.Stdout, m.cmd.Stderr = out, out
	// In its own process group, as from a shell: an interrupt of the test at the terminal must not reach it as a
	// SIGINT.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := h.begin(m.cmd); err != nil {
		h.t.Fatal(err)
	}
	m.pid = m.cmd.Process.Pid
	h.masters = append(h.masters, m)
	go func() {
		defer close(m.ended)
		_ = m.cmd.Wait()
	}()
	return m
}

// start starts a master and returns when it is SERVING.
func (h *host) start(flags ...string) *master {
	h.t.Helper()
	m := h.launch(h.program, nil, flags...)
	m.awaitServing()
	return m
}

// leaked reports whether a program found leaked goroutines or descriptors at its end. All programs that are built
// with crash points check that, see watchLeaks.
func leaked(stderr string) bool {
	return strings.HasPrefix(stderr, "leak: ") || strings.Contains(stderr, "\nleak: ")
}

// cleanEnviron returns this process's environment without the variables that affect a master.
func cleanEnviron() []string {
	var kept []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "HSU_") && !strings.HasPrefix(entry, "XDG_") {
			kept = append(kept, entry)
		}
	}
	return kept
}

func (m *master) running() bool {
	select {
	case <-m.ended:
		return false
	default:
		return true
	}
}

func (m *master) log() string {
	text, err := os.ReadFile(m.logPath)
	if err != nil {
		m.h.t.Error(err)
	}
	return string(text)
}

// awaitServing returns when grpc.health.v1 reports SERVING.
func (m *master) awaitServing() {
	m.h.t.Helper()
	client := grpc_health_v1.NewHealthClient(m.h.dial())
	waitFor(m.h.t, "the master serves", func() error {
		if !m.running() {
			m.h.t.Fatalf("the master ended: %v\n%s", m.cmd.ProcessState, m.log())
		}
		ctx, cancel := context.WithTimeout(m.h.t.Context(), time.Second)
		defer cancel()
		answer, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
		if err == nil && answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			err = errors.New(answer.GetStatus().String())
		}
		return err
	})
}

func (m *master) signal(s syscall.Signal) {
	m.h.t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		m.h.t.Fatal(err)
	}
}

// kill kills the master with SIGKILL, and returns when the process is gone.
func (m *master) kill() {
	m.h.t.Helper()
	_ = m.cmd.Process.Kill()
	m.wait()
}

// wait returns the exit code, -1 if a signal ended the master.
func (m *master) wait() int {
	m.h.t.Helper()
	select {
	case <-m.ended:
	case <-time.After(2 * patience):
		// The stacks show in the log where it hangs.
		_ = m.cmd.Process.Signal(syscall.SIGQUIT)
		<-m.ended
		m.h.t.Fatalf("master %d did not end", m.pid)
	}
	return m.cmd.ProcessState.ExitCode()
}

// endIfRunning sends SIGTERM to a master that may be ending by itself, and returns when it has ended.
func (m *master) endIfRunning() {
	m.h.t.Helper()
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		m.h.t.Fatal(err)
	}
	m.wait()
}

// stop is an orderly stop: SIGTERM, exit code 0.
func (m *master) stop() {
	m.h.t.Helper()
	m.signal(syscall.SIGTERM)
	m.wantExit(0)
}

func (m *master) wantExit(code int) {
	m.h.t.Helper()
	if got := m.wait(); got != code {
		m.h.t.Errorf("the master's exit code is %d, want %d\n%s", got, code, m.log())
	}
}

// The JSON of DESIGN, repeated here because scripts rely on it.
type (
	dump struct {
		Source         string    `json:"source"`
		SchemaVersion  int       `json:"schema_version"`
		MasterID       string    `json:"master_id"`
		MasterPID      int       `json:"master_pid"`
		ProcessedCount int64     `json:"processed_count"`
		Workers        []worker  `json:"workers"`
		Services       []service `json:"services"`
	}
	worker struct {
		ID          string    `json:"id"`
		Unit        string    `json:"unit"`
		Desired     string    `json:"desired"`
		Status      string    `json:"status"`
		Reason      string    `json:"reason"`
		PID         int       `json:"pid"`
		Port        int       `json:"port"`
		Token       string    `json:"token"`
		Incarnation int       `json:"incarnation"`
		Restarts    int       `json:"restarts"`
		Adopted     bool      `json:"adopted"`
		Outdated    bool      `json:"outdated"`
		Probe       string    `json:"probe"`
		WaitingFor  string    `json:"waiting_for"`
		StartedAt   time.Time `json:"started_at"`
		LastExit    *exit     `json:"last_exit"`
		LastOutput  []string  `json:"last_output"`
	}
	exit struct {
		Code   *int      `json:"code"`
		Signal *string   `json:"signal"`
		Known  bool      `json:"known"`
		At     time.Time `json:"at"`
	}
	service struct {
		Name      string `json:"name"`
		Endpoints []struct {
			Address string `json:"address"`
			Worker  string `json:"worker"`
			Healthy bool   `json:"healthy"`
		} `json:"endpoints"`
	}
)

// ready reports whether requests go to the worker.
func (d dump) ready(id string) bool {
	for _, s := range d.Services {
		for _, e := range s.Endpoints {
			if e.Worker == id && e.Healthy {
				return true
			}
		}
	}
	return false
}

func (d dump) worker(t *testing.T, id string) worker {
	t.Helper()
	for _, w := range d.Workers {
		if w.ID == id {
			return w
		}
	}
	t.Fatalf("no %s in the dump: %+v", id, d.Workers)
	return worker{}
}

// result is the result of a short command.
type result struct {
	code           int
	stdout, stderr string
}

// cli runs a command of hsu-master on this host's folders.
func (h *host) cli(args ...string) result {
	h.t.Helper()
	return h.command(append(args, "--state-dir", h.state)...)
}

func (h *host) command(args ...string) result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, programs.master, args...)
	cmd.Env = cleanEnviron()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		h.t.Fatalf("hsu-master %q: %v", args, err)
	}
	if leaked(stderr.String()) {
		h.t.Errorf("hsu-master %q: %s", args, &stderr)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// dump returns "hsu-master state dump --json".
func (h *host) dump() dump {
	h.t.Helper()
	d, err := h.tryDump()
	if err != nil {
		h.t.Fatal(err)
	}
	return d
}

func (h *host) tryDump() (dump, error) {
	h.t.Helper()
	r := h.cli("state", "dump", "--json")
	if r.code != 0 {
		return dump{}, fmt.Errorf("state dump: exit code %d: %s", r.code, r.stderr)
	}
	var d dump
	if err := json.Unmarshal([]byte(r.stdout), &d); err != nil {
		return dump{}, fmt.Errorf("state dump: %w\n%s", err, r.stdout)
	}
	return d, nil
}

// awaitWorkers returns the dump in which each of the n workers passes.
func (h *host) awaitWorkers(n int, what string, pass func(dump, worker) bool) dump {
	h.t.Helper()
	var d dump
	waitFor(h.t, fmt.Sprintf("%d workers %s", n, what), func() (err error) {
		if d, err = h.tryDump(); err != nil {
			return err
		}
		for _, w := range d.Workers {
			if !pass(d, w) {
				return fmt.Errorf("%s is not: %+v", w.ID, w)
			}
		}
		if len(d.Workers) != n {
			return fmt.Errorf("there are %d", len(d.Workers))
		}
		return nil
	})
	return d
}

func running(d dump, w worker) bool { return w.Status == "running" && w.PID > 0 && d.ready(w.ID) }

func (h *host) awaitRunning(n int) dump {
	h.t.Helper()
	return h.awaitWorkers(n, "run", running)
}

// instance is the part of a worker that must stay the same if it survives.
type instance struct {
	PID, Port, Incarnation, Restarts int
	Token                            string
	Born                             uint64 // start time in ticks, from /proc
}

// instances returns the processes of the dump by worker.
func (d dump) instances(t *testing.T) map[string]instance {
	t.Helper()
	m := map[string]instance{}
	for _, w := range d.Workers {
		m[w.ID] = instance{w.PID, w.Port, w.Incarnation, w.Restarts, w.Token, born(t, w.PID)}
	}
	return m
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// dial connects to the master, whichever runs.
func (h *host) dial() *grpc.ClientConn { return dial(h.t, h.port) }

// dial makes a connection that reconnects within milliseconds after its server is back.
func dial(t *testing.T, port int) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address(port),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		rpc.Interceptor(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 2 * time.Millisecond, Multiplier: 1.5, MaxDelay: 20 * time.Millisecond,
			},
			// A port without a listener refuses at once. A server that is only slow must not fail the calls that do
			// not wait for it to be ready.
			MinConnectTimeout: patience,
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask has one item processed by the master.
func (h *host) ask(data string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	answer, err := proto.NewMyBusinessServiceClient(h.dial()).ProcessData(ctx, &proto.ProcessRequest{Data: data})
	if err != nil || answer.GetResult() != "Processed: "+data || !answer.GetSuccess() {
		h.t.Errorf("ProcessData(%q) = %v, %v", data, answer, err)
	}
}

// own asks the worker directly, without a master, for its in-memory state.
func own(t *testing.T, port int) *proto.StatusResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	answer, err := proto.NewMyBusinessServiceClient(dial(t, port)).GetStatus(ctx, &proto.StatusRequest{},
		grpc.WaitForReady(true))
	if err != nil {
		t.Fatalf("the worker on port %d does not answer: %v", port, err)
	}
	return answer
}

// waitFor polls until check returns nil. Tests wait in no other way.
func waitFor(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for: %s: %v", patience, what, err)
		}
		time.Sleep(pause)
	}
}

// awaitMore returns when count has risen by n.
func awaitMore(t *testing.T, what string, count *atomic.Int64, n int64) {
	t.Helper()
	goal := count.Load() + n
	waitFor(t, fmt.Sprintf("%d %s", goal, what), func() error {
		if got := count.Load(); got < goal {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
}

// lacking skips a test that needs a feature that a machine may lack, and fails it in CI, where all tests run.
func lacking(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// recentPorts are the last ports that were handed out: a master's port has no listener while the master is down,
// and must not be given to another test meanwhile.
type recentPorts struct {
	mu   sync.Mutex
	last []int
}

var handedOut recentPorts

// add adds a port and reports whether it is new.
func (r *recentPorts) add(port int) bool {
	const most = 2000
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(r.last, port) {
		return false
	}
	if r.last = append(r.last, port); len(r.last) > most {
		r.last = r.last[1:]
	}
	return true
}

// freePort returns a port without a listener. It is outside of the kernel's ephemeral range, because while the
// master is down, a port in that range might be taken by a worker, or by a connection.
func freePort(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	const lowest = 10_000
	first, err := strconv.Atoi(strings.Fields(string(text))[0])
	if err != nil || first <= lowest {
		first = 32_768
	}
	for range 100 {
		port := lowest + rand.IntN(first-lowest)
		if !handedOut.add(port) {
			continue
		}
		l, err := net.Listen("tcp", address(port))
		if err != nil {
			continue
		}
		defer func() { _ = l.Close() }()
		return port
	}
	t.Fatal("found no free port")
	return 0
}

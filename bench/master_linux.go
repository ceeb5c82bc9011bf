package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/core-tools/hsu-master/api/adminpb"
)

const (
	startPatience = 60 * time.Second // for the start of a master, or of a hundred workers
	stopPatience  = 30 * time.Second // for a master to stop its workers
)

// master is a running hsu-master.
type master struct {
	lab     *lab
	dir     string   // its state directory
	flags   []string // besides those of every master
	address string
	secure  *certificate // of its port; nil without TLS
	cmd     *exec.Cmd
	execed  time.Time
	started chan loggedWorker
	ready   chan loggedWorker
	stderr  tail
	stacks  int           // of goroutines in its output, to be read when it has ended
	drained chan struct{} // closed at the end of its output
	once    sync.Once
	err     error
}

// loggedWorker is a worker about which the master has logged a message.
type loggedWorker struct {
	id  string
	pid int
	at  time.Time
}

// maxLogged is more than any experiment waits for.
const maxLogged = 4096

// startMaster executes hsu-master with the state in dir, on a free port, with the flags that a user would give it.
func (l *lab) startMaster(dir string, flags ...string) (*master, error) {
	port, err := freePort()
	if err != nil {
		return nil, fmt.Errorf("take a free port: %w", err)
	}
	m := &master{
		lab: l, dir: dir, flags: flags, address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		started: make(chan loggedWorker, maxLogged), ready: make(chan loggedWorker, maxLogged),
		drained: make(chan struct{}),
	}
	args := append([]string{"run", "--state-dir", dir, "--port", strconv.Itoa(port), "--log-format", "json"}, flags...)
	m.cmd = exec.Command(l.masterPath, args...)
	m.cmd.Env = masterEnviron()
	m.cmd.SysProcAttr = ownGroup()
	output, err := m.cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start the master: %w", err)
	}
	m.execed = time.Now()
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the master: %w", err)
	}
	go func() {
		defer close(m.drained)
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			at := time.Now()
			line, isReady := parseLog(lines.Bytes())
			var to chan loggedWorker // nil for other lines
			switch {
			case isReady:
				to = m.ready
			case line.Message == messageStarted:
				to = m.started
			case bytes.HasPrefix(lines.Bytes(), []byte("goroutine ")):
				m.stacks++
			}
			select {
			case to <- loggedWorker{id: line.Worker, pid: line.PID, at: at}:
			default: // more than anybody waits for
			}
			_, _ = m.stderr.Write(append(lines.Bytes(), '\n'))
		}
	}()
	return m, nil
}

// masterEnviron removes the variables that would configure the master.
func masterEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return strings.HasPrefix(name, "HSU_") || strings.HasPrefix(name, "LISTEN_") ||
			strings.HasSuffix(name, "_DIRECTORY") || name == "NOTIFY_SOCKET"
	})
}

func (m *master) pid() int { return m.cmd.Process.Pid }

// awaitWorkers returns when n workers have become ready since the last call, with the last of them and its time.
func (m *master) awaitWorkers(ctx context.Context, n int) (last loggedWorker, err error) {
	return m.await(ctx, m.ready, n, "ready")
}

func (m *master) await(ctx context.Context, logged <-chan loggedWorker, n int,
	what string,
) (last loggedWorker, err error) {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for range n {
		select {
		case last = <-logged:
		case <-m.drained:
			return last, fmt.Errorf("the master ended%s", m.stderr.text())
		case <-ctx.Done():
			return last, fmt.Errorf("wait for %d workers to be %s: %w%s", n, what, ctx.Err(), m.stderr.text())
		}
	}
	return last, nil
}

// awaitServing returns the time at which grpc.health.v1 reported SERVING. It uses Watch, so that the master sends
// the status by itself.
func (m *master) awaitServing(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	fail := func(err error) (time.Time, error) {
		return time.Time{}, fmt.Errorf("wait for the master to serve: %w%s", err, m.stderr.text())
	}
	if err := awaitPort(ctx, m.address, m.drained); err != nil {
		return fail(err)
	}
	secured, err := m.secure.client()
	if err != nil {
		return fail(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+m.address, grpc.WithTransportCredentials(secured))
	if err != nil {
		return fail(err)
	}
	defer func() { _ = conn.Close() }()
	watch, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return fail(err)
	}
	for {
		state, err := watch.Recv()
		if err != nil {
			return fail(err)
		}
		if state.GetStatus() == healthpb.HealthCheckResponse_SERVING {
			return time.Now(), nil
		}
	}
}

// awaitPort probes until a process accepts, or ended is closed.
func awaitPort(ctx context.Context, address string, ended <-chan struct{}) error {
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ended:
			return errors.New("it ended")
		case <-ctx.Done():
			return err
		}
	}
}

// state queries the admin socket.
func (m *master) state(ctx context.Context) (*adminpb.State, error) {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	conn, err := grpc.NewClient("unix:"+filepath.Join(m.dir, "run", "admin.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("ask the master: %w", err)
	}
	defer func() { _ = conn.Close() }()
	resp, err := adminpb.NewAdminClient(conn).GetState(ctx, &adminpb.GetStateRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return nil, fmt.Errorf("ask the master: %w", err)
	}
	return resp.GetState(), nil
}

// runningWorkers returns the n workers when all are recorded as running, which happens soon after they are ready.
func (m *master) runningWorkers(ctx context.Context, n int) (map[string]*adminpb.Worker, error) {
	return m.awaitRecords(ctx, n, "running", func(w *adminpb.Worker) bool { return w.GetStatus() == "running" })
}

// startedWorkers returns the n workers when the process of each is recorded.
func (m *master) startedWorkers(ctx context.Context, n int) (map[string]*adminpb.Worker, error) {
	if _, err := m.await(ctx, m.started, n, "started"); err != nil { // asking earlier would delay the master
		return nil, err
	}
	return m.awaitRecords(ctx, n, "recorded", func(w *adminpb.Worker) bool { return w.GetPid() != 0 })
}

func (m *master) awaitRecords(ctx context.Context, n int, what string,
	pass func(*adminpb.Worker) bool,
) (map[string]*adminpb.Worker, error) {
	for deadline := time.Now().Add(startPatience); ; {
		state, err := m.state(ctx)
		if err != nil {
			return nil, err
		}
		workers := make(map[string]*adminpb.Worker, n)
		for _, w := range state.GetWorkers() {
			if pass(w) {
				workers[w.GetId()] = w
			}
		}
		if len(workers) == n {
			return workers, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%d workers are %s, want %d", len(workers), what, n)
		}
		// An answer costs the master as much as it has workers.
		if err := pause(ctx, max(2*time.Millisecond, time.Duration(n)*50*time.Microsecond)); err != nil {
			return nil, err
		}
	}
}

// crash kills the master with SIGKILL; the workers live on.
func (m *master) crash() error {
	if err := m.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill the master: %w", err)
	}
	m.once.Do(func() {
		<-m.drained
		_ = m.cmd.Wait() // killed
	})
	return nil
}

// abort ends the master as a crash does, and returns the number of its goroutines: at SIGQUIT, Go prints the stacks of
// all.
func (m *master) abort() (goroutines int, err error) {
	if err := m.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		return 0, fmt.Errorf("abort the master: %w", err)
	}
	m.once.Do(func() {
		<-m.drained
		_ = m.cmd.Wait() // killed
	})
	return m.stacks, nil
}

// stop stops the master and with it its workers, and kills those that remain. Further calls return the same result.
func (m *master) stop() error {
	m.once.Do(func() {
		_ = m.cmd.Process.Signal(syscall.SIGTERM) // the process may have exited already
		defer time.AfterFunc(stopPatience, func() { _ = m.cmd.Process.Kill() }).Stop()
		<-m.drained
		if err := m.cmd.Wait(); err != nil {
			m.err = fmt.Errorf("stop the master: %w%s", err, m.stderr.text())
		}
	})
	return m.err
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}

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
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/core-tools/hsu-core/go/logging"
	"github.com/phayes/freeport"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/internal/leaks"
	"github.com/core-tools/hsu-master/supervisor/process/sockets"
)

// asWorker is the environment variable that makes the test binary run as hsu-worker, so that tests have a process
// to send signals to.
const asWorker = "HSU_WORKER_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(asWorker) != "" {
		main()
	}
	os.Exit(leaks.Run(m, os.Stderr))
}

// worker is a running hsu-worker.
type worker struct {
	t       testing.TB
	cmd     *exec.Cmd
	conn    control.Connection
	started time.Time
	log     chan string // lines written to standard error; closed at the end of the output
}

// startWorker starts a worker and returns when it listens.
func startWorker(t testing.TB, args ...string) *worker {
	t.Helper()
	port := reservedPort(t)
	w := &worker{t: t, log: make(chan string, 1000)}
	w.cmd = exec.Command(os.Args[0], append([]string{"--port", fmt.Sprint(port)}, args...)...)
	w.cmd.Env = append(os.Environ(), asWorker+"=1")
	stderr, err := w.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.started = time.Now()
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = w.cmd.Process.Kill() // has already exited if the test succeeded
		_ = w.cmd.Wait()
	})
	go func() {
		defer close(w.log)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			w.log <- lines.Text()
		}
	}()
	if w.conn, err = control.NewConnection(control.ConnectionOptions{AttachPort: port},
		logging.NewLogger("", logging.LogFuncs{})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.conn.Shutdown)
	w.waitForPort(port)
	return w
}

// reservedPort returns a port that is free until the end of the test. The kernel gives it to nobody else, but the
// worker can listen on it.
func reservedPort(t testing.TB) int {
	t.Helper()
	for {
		port, err := freeport.GetFreePort()
		if err != nil {
			t.Fatal(err)
		}
		reservation, err := sockets.Claim(port)
		switch {
		case err == nil:
			t.Cleanup(func() { _ = reservation.Close() })
			return port
		case !errors.Is(err, syscall.EADDRINUSE):
			return port // this system has no reservations
		}
	}
}

// waitForPort waits until the port accepts connections. It is called before the first gRPC call, because gRPC
// waits a second after a refused connection.
func (w *worker) waitForPort(port int) {
	w.t.Helper()
	for {
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(port)))
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Since(w.started) > time.Minute {
			w.t.Fatalf("the worker does not listen after a minute: %v", err)
		}
		time.Sleep(200 * time.Microsecond) // another process's port can only be polled
	}
}

func (w *worker) ping() error {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	return control.NewGRPCClientGateway(w.conn.GRPC(), logging.NewLogger("", logging.LogFuncs{})).Ping(ctx)
}

// stop sends SIGTERM and returns the exit code and the lines that the worker wrote to standard error.
func (w *worker) stop() (int, []string) {
	w.t.Helper()
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		w.t.Fatal(err)
	}
	ended := time.AfterFunc(time.Minute, func() {
		w.t.Error("the worker did not end within a minute of SIGTERM")
		_ = w.cmd.Process.Kill()
	})
	defer ended.Stop()
	var lines []string
	for line := range w.log {
		lines = append(lines, line)
	}
	_ = w.cmd.Wait() // the exit code is checked by the caller
	return w.cmd.ProcessState.ExitCode(), lines
}

func TestWorkerServesAllItsServicesAndStopsCleanly(t *testing.T) {
	w := startWorker(t)
	ctx := t.Context()
	if err := w.ping(); err != nil {
		t.Error(err)
	}
	business := proto.NewMyBusinessServiceClient(w.conn.GRPC())
	for _, data := range []string{"x", "", "100% of %s"} {
		got, err := business.ProcessData(ctx, &proto.ProcessRequest{Data: data})
		if err != nil {
			t.Fatal(err)
		}
		if want := "Processed: " + data; got.GetResult() != want || !got.GetSuccess() {
			t.Errorf("ProcessData(%q) = %q, %v, want %q, true", data, got.GetResult(), got.GetSuccess(), want)
		}
	}
	got, err := business.GetStatus(ctx, &proto.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetStatus() != "running" || got.GetProcessedCount() != 3 {
		t.Errorf("GetStatus = %q, %d, want running, 3", got.GetStatus(), got.GetProcessedCount())
	}
	for _, service := range []string{"", "proto.MyBusinessService"} {
		health, err := grpc_health_v1.NewHealthClient(w.conn.GRPC()).Check(ctx, &grpc_health_v1.HealthCheckRequest{
			Service: service,
		})
		if err != nil {
			t.Fatal(err)
		}
		if health.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q = %v, want SERVING", service, health.GetStatus())
		}
	}

	code, log := w.stop()
	if code != exitDone {
		t.Errorf("exit code after SIGTERM = %d, want %d", code, exitDone)
	}
	if len(log) != 2 || !strings.Contains(log[0], "worker started") || !strings.Contains(log[1], "worker stopped") {
		t.Errorf("log at the default level = %q, want a line at the start and one at the stop", log)
	}
}

func TestDebugLogHasOneBoundedLinePerRequest(t *testing.T) {
	w := startWorker(t, "--log-level", "debug")
	ctx := t.Context()
	business := proto.NewMyBusinessServiceClient(w.conn.GRPC())
	requests := []struct{ name, data, want string }{
		{"format verbs", "%s %d %!", `data="%s %d %!"`},
		{"forged line", "a\nlevel=ERROR msg=forged", `data="a\nlevel=ERROR msg=forged"`},
		{"long", strings.Repeat("é", 1<<16), "bytes=131072"},
	}
	for _, r := range requests {
		if _, err := business.ProcessData(ctx, &proto.ProcessRequest{Data: r.data}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.ping(); err != nil {
		t.Fatal(err)
	}
	if _, err := business.GetStatus(ctx, &proto.StatusRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := grpc_health_v1.NewHealthClient(w.conn.GRPC()).Check(ctx,
		&grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}

	_, log := w.stop()
	var lines []string
	for _, line := range log {
		if strings.Contains(line, "msg=request") {
			lines = append(lines, line)
		}
		if len(line) > 1000 {
			t.Errorf("a line of %d bytes: %.100s...", len(line), line)
		}
	}
	if len(lines) != len(requests)+3 {
		t.Fatalf("%d lines for %d requests:\n%s", len(lines), len(requests)+3, strings.Join(log, "\n"))
	}
	for i, r := range requests {
		if !strings.Contains(lines[i], r.want) {
			t.Errorf("%s: no %s in %s", r.name, r.want, lines[i])
		}
	}
}

func TestHealthWatcherSeesTheStopAndDoesNotDelayIt(t *testing.T) {
	w := startWorker(t)
	watch, err := grpc_health_v1.NewHealthClient(w.conn.GRPC()).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || first.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("watch = %v, %v, want SERVING", first, err)
	}
	if code, log := w.stop(); code != exitDone {
		t.Errorf("exit code = %d, want %d; log: %q", code, exitDone, log)
	}
	for err == nil {
		var last *grpc_health_v1.HealthCheckResponse
		if last, err = watch.Recv(); err == nil && last.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
			t.Errorf("watch at the stop = %v, want NOT_SERVING or the end", last)
		}
	}
	if code := status.Code(err); code != codes.Canceled {
		t.Errorf("watch ended with %v, want Canceled", err)
	}
}

func TestWrongUsageExits2WithTheNextStep(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{nil, "--port is required"},
		{[]string{"--port"}, "port"},
		{[]string{"--port", "abc"}, "abc"},
		{[]string{"--port", "0"}, "--port 0"},
		{[]string{"--port", "65536"}, "--port 65536"},
		{[]string{"--port", "-1"}, "--port -1"},
		{[]string{"--port", "40000", "--log-level", "loud"}, "loud"},
		{[]string{"--port", "40000", "--nope"}, "nope"},
		{[]string{"--port", "40000", "extra"}, `"extra"`},
	}
	for _, test := range tests {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(test.args, &stdout, &stderr); code != exitUsage {
				t.Errorf("exit code = %d, want %d", code, exitUsage)
			}
			for _, want := range []string{"hsu-worker: error: ", test.want, "hsu-worker: hint: "} {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("no %q in %q", want, stderr.String())
				}
			}
			if stdout.Len() > 0 {
				t.Errorf("standard output: %q", stdout.String())
			}
		})
	}
}

func TestHelpIsNoError(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run([]string{"--help"}, &stdout, &stderr); code != exitDone || stderr.Len() > 0 ||
		stdout.String() != usage {
		t.Errorf("--help = %d, %q, %q, want 0 and the usage", code, stdout.String(), stderr.String())
	}
}

func TestPortInUseExits1NamingThePort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, port, _ := net.SplitHostPort(taken.Addr().String())

	var stdout, stderr bytes.Buffer
	if code := run([]string{"--port", port}, &stdout, &stderr); code != exitFailed {
		t.Errorf("exit code = %d, want %d", code, exitFailed)
	}
	if got := stderr.String(); !strings.Contains(got, "error: port "+port+": ") || !strings.Contains(got, "hint: ") {
		t.Errorf("standard error does not name port %s and a next step: %q", port, got)
	}
}

// BenchmarkFirstPing measures the time from exec to the answer of the first Ping, which each start of a worker
// costs a master. The test binary starts slightly slower than the worker alone.
func BenchmarkFirstPing(b *testing.B) {
	for b.Loop() {
		w := startWorker(b)
		if err := w.ping(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(w.started).Microseconds())/1000, "ms/last-ping")
		b.StopTimer()
		w.stop()
		b.StartTimer()
	}
}

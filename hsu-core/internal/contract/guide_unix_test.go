//go:build unix && go1.25

package contract

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/core-tools/hsu-core/go/control"
)

// The program of the HSU guide, in testdata/guide, compiles against this module and runs two workers. They
// are that program again: without a worker path it serves alone.
func TestProgramOfTheGuide(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // most of it for the compiler
	defer cancel()
	program := build(ctx, t)

	master := exec.CommandContext(ctx, program, "--port", "0", "--worker-path", program, "--worker-count", "2")
	// Not SIGKILL, which would leave its workers behind.
	master.Cancel = func() error { return master.Process.Signal(syscall.SIGTERM) }
	stderr, err := master.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := master.Start(); err != nil {
		t.Fatal(err)
	}

	log := bufio.NewScanner(stderr)
	started := regexp.MustCompile(`Worker (worker-\d) started successfully on port (\d+)`)
	var names []string
	var ports []int
	for len(ports) < 2 && log.Scan() {
		if m := started.FindStringSubmatch(log.Text()); m != nil {
			port, err := strconv.Atoi(m[2])
			if err != nil {
				t.Error(err)
			}
			names, ports = append(names, m[1]), append(ports, port)
		}
	}
	if !slices.Equal(names, []string{"worker-0", "worker-1"}) {
		t.Errorf("workers %q started, want two", names)
	}
	for _, port := range ports {
		if err := ping(ctx, port); err != nil {
			t.Errorf("Ping of the worker on port %d: %v", port, err)
		}
	}
	if n := len(runningFrom(t, program)); n != 3 && runtime.GOOS == "linux" {
		t.Errorf("%d processes of the program, want a master and two workers", n)
	}

	if err := master.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	for log.Scan() { // until it has ended
	}
	if err := master.Wait(); err != nil {
		t.Errorf("the master ended with %v, want exit code 0", err)
	}
	if left := runningFrom(t, program); len(left) != 0 {
		t.Errorf("processes %v are left", left)
	}
	for _, port := range ports {
		if conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			_ = conn.Close()
			t.Errorf("port %d still accepts", port)
		}
	}
}

// build returns the path of the guide's program.
func build(ctx context.Context, t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "master")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", program, "./cmd/master")
	cmd.Dir = filepath.Join(module, "testdata", "guide")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the guide's program: %v\n%s", err, out)
	}
	return program
}

func ping(ctx context.Context, port int) error {
	conn, err := control.NewConnection(control.ConnectionOptions{AttachPort: port}, nil)
	if err != nil {
		return err
	}
	defer conn.Shutdown()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return control.NewGRPCClientGateway(conn.GRPC(), nil).Ping(ctx)
}

// runningFrom returns the folders in /proc of the processes that run the program; none where there is no /proc.
func runningFrom(t *testing.T, program string) []string {
	t.Helper()
	program, err := filepath.EvalSymlinks(program)
	if err != nil {
		t.Fatal(err)
	}
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(links, func(link string) bool {
		target, err := os.Readlink(link)
		return err != nil || target != program
	})
}

//go:build unix && go1.25

package control

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/core-tools/hsu-core/go/domain"
	"github.com/core-tools/hsu-core/go/logging"
)

// If its arguments are those of a unit, this test binary is a unit.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "--port" {
		beUnit(os.Args[2])
		return
	}
	// A program with the race detector sleeps for a second before it exits.
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	os.Exit(m.Run())
}

// beUnit serves on a port and prints its PID, then its log, then its actions.
func beUnit(port string) {
	fmt.Println("pid", os.Getpid())
	number, err := strconv.Atoi(port)
	if err != nil {
		fmt.Println("bad port:", err)
		os.Exit(2)
	}
	infof := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	s, err := NewServer(ServerOptions{Port: number}, logging.NewLogger("", logging.LogFuncs{Infof: infof}))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	RegisterGRPCServerHandler(s.GRPC(), domain.NewDefaultHandler(nil), nil)
	s.Run(func() { fmt.Println("callback") })
	fmt.Println("run returned")
}

func TestRunEndsWithSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "--port", "0")
			cmd.Stderr = os.Stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines, port := bufio.NewScanner(stdout), 0
			for port == 0 && lines.Scan() {
				if _, address, ok := strings.Cut(lines.Text(), "listening on 127.0.0.1:"); ok {
					port, _ = strconv.Atoi(address)
				}
			}
			if err := ping(t, client(t, port)); err != nil { // it serves now, so Run waits for the signal
				t.Error(err)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			var rest []string
			for lines.Scan() {
				rest = append(rest, lines.Text())
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("the server ended with %v, want exit code 0", err)
			}
			said := strings.Join(rest, "\n")
			callback, returned := strings.Index(said, "callback"), strings.Index(said, "run returned")
			if callback < 0 || returned < callback {
				t.Errorf("after the signal it said\n%s\nwant the callback, then the return", said)
			}
		})
	}
}

// wire collects the output of a unit, and sends its PID.
type wire struct{ pid chan int }

func (w *wire) debugf(format string, args ...any) {
	if _, number, ok := bytes.Cut(fmt.Appendf(nil, format, args...), []byte("pid ")); ok {
		if pid, err := strconv.Atoi(string(number)); err == nil {
			select {
			case w.pid <- pid:
			default:
			}
		}
	}
}

func TestConnectionToAUnitOfItsOwn(t *testing.T) {
	w := &wire{pid: make(chan int, 8)}
	conn, err := NewConnection(ConnectionOptions{ServerPath: os.Args[0]},
		logging.NewLogger("", logging.LogFuncs{Debugf: w.debugf}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Shutdown()

	unit := NewGRPCClientGateway(conn.GRPC(), nil)
	options := domain.RetryPingOptions{RetryAttempts: 12, RetryInterval: 10 * time.Millisecond}
	if err := domain.RetryPing(t.Context(), unit, options, nil); err != nil {
		t.Fatal(err)
	}
	pid := <-w.pid
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("process group of %d = %d, %v, want its own", pid, group, err)
	}

	conn.Shutdown()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d after Shutdown: %v, want it gone", pid, err)
	}
	address := strings.TrimPrefix(conn.GRPC().(*grpc.ClientConn).Target(), "passthrough:///")
	if tcp, err := net.Dial("tcp", address); err == nil {
		_ = tcp.Close()
		t.Errorf("%s still accepts after Shutdown", address)
	}
	conn.Shutdown() // a second call has nothing left to do
}

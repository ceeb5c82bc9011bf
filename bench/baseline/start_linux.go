package baseline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/core-tools/hsu-core/go/control"
)

// Starter starts plain processes: no record, no token, no identity, no log file.
type Starter struct {
	binary string

	mu      sync.Mutex
	running []*os.Process
}

// NewStarter returns a starter of the program.
func NewStarter(binary string) *Starter { return &Starter{binary: binary} }

// Exec starts n processes with these arguments, one after the other. It returns when the last one executes the program.
func (s *Starter) Exec(n int, args ...string) error {
	for range n {
		if err := s.exec(args...); err != nil {
			return err
		}
	}
	return nil
}

func (s *Starter) exec(args ...string) error {
	process, err := os.StartProcess(s.binary, append([]string{s.binary}, args...), &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{nil, nil, nil},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", s.binary, err)
	}
	s.mu.Lock()
	s.running = append(s.running, process)
	s.mu.Unlock()
	return nil
}

// Start starts n processes with --port N at once and returns when each has answered its first Ping.
func (s *Starter) Start(ctx context.Context, n int) error {
	ports, err := freePorts(n)
	if err != nil {
		return fmt.Errorf("take free ports: %w", err)
	}
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i, port := range ports {
		wg.Go(func() { errs[i] = s.startOne(ctx, port) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *Starter) startOne(ctx context.Context, port int) error {
	if err := s.exec("--port", strconv.Itoa(port)); err != nil {
		return err
	}
	if err := await(ctx, port); err != nil {
		return err
	}
	conn, err := control.NewConnection(control.ConnectionOptions{AttachPort: port}, nil)
	if err != nil {
		return err
	}
	defer conn.Shutdown()
	return control.NewGRPCClientGateway(conn.GRPC(), nil).Ping(ctx)
}

// Stop kills all started processes and waits until they are gone.
func (s *Starter) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, p := range s.running {
		errs = append(errs, p.Kill())
	}
	for _, p := range s.running {
		_, err := p.Wait()
		errs = append(errs, err)
	}
	s.running = nil
	return errors.Join(errs...)
}

// await returns when a process accepts on the port. It probes often at first, because a program that starts alone
// is ready within milliseconds, and seldom later, because probes take processor time away from a hundred that
// start.
func await(ctx context.Context, port int) error {
	var dialer net.Dialer
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for delay := 500 * time.Microsecond; ; delay = min(delay*3/2, 50*time.Millisecond) {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return fmt.Errorf("nothing accepts on %s: %w", address, err)
		}
	}
}

// freePorts returns n ports, each another: all are taken before any is given back.
func freePorts(n int) (ports []int, err error) {
	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
	}()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		listeners, ports = append(listeners, l), append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

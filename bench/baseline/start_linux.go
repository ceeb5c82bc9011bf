package baseline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/core-tools/hsu-core/go/control"
	"golang.org/x/sys/unix"
)

// Starter starts plain processes: no token, no identity, and by default no record and no log file.
type Starter struct {
	binary string
	kept   *kept // nil if the starts leave nothing

	mu      sync.Mutex
	running []*os.Process
}

// kept is what starts leave that a crash of their starter must not lose.
type kept struct {
	dir    string
	record *Syncer
	starts atomic.Int64
}

// NewStarter returns a starter of the program.
func NewStarter(binary string) *Starter { return &Starter{binary: binary} }

// NewRecordingStarter returns a starter whose starts also do the least that lets another program take over their
// processes, and know what they have written: a record is durable before the first process of an order runs, and each
// process inherits a file that is locked, and a log. The files are made in dir. Exec also records when all run.
func NewRecordingStarter(binary, dir string) (*Starter, error) {
	record, err := NewSyncer(dir)
	if err != nil {
		return nil, err
	}
	return &Starter{binary: binary, kept: &kept{dir: dir, record: record}}, nil
}

// sync makes the record of an order durable.
func (k *kept) sync() error {
	if k == nil {
		return nil
	}
	_, err := k.record.Sync()
	return err
}

// open returns the files that the next process inherits, which the caller closes.
func (k *kept) open() ([]*os.File, error) {
	if k == nil {
		return []*os.File{nil, nil, nil}, nil
	}
	name := filepath.Join(k.dir, strconv.FormatInt(k.starts.Add(1), 10))
	lease, err := os.OpenFile(name+".lease", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = unix.Flock(int(lease.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	var log *os.File
	if err == nil {
		log, err = os.OpenFile(name+".log", os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, lease.Close())
	}
	return []*os.File{nil, log, log, lease}, nil
}

// Exec starts n processes with these arguments, one after the other. It returns when the last one executes the program.
func (s *Starter) Exec(n int, args ...string) error {
	if err := s.kept.sync(); err != nil {
		return err
	}
	for range n {
		if err := s.exec(args...); err != nil {
			return err
		}
	}
	return s.kept.sync()
}

func (s *Starter) exec(args ...string) error {
	files, err := s.kept.open()
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range files {
			_ = f.Close() // fails without any effect if it is nil, or closed already
		}
	}()
	process, err := os.StartProcess(s.binary, append([]string{s.binary}, args...), &os.ProcAttr{
		Env:   os.Environ(),
		Files: files,
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
	if err := s.kept.sync(); err != nil {
		return err
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

// Replace kills the process that was started last, waits for its end and starts another one as Start does.
func (s *Starter) Replace(ctx context.Context) error {
	s.mu.Lock()
	last := s.running[len(s.running)-1]
	s.running = s.running[:len(s.running)-1]
	s.mu.Unlock()
	if err := last.Kill(); err != nil {
		return err
	}
	if _, err := last.Wait(); err != nil {
		return err
	}
	return s.Start(ctx, 1)
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

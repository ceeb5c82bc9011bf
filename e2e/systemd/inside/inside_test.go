//go:build inside

// Package inside runs as root in its own machine under systemd, where it may install, kill and remove the service
// as it likes.
package inside

import (
	"bytes"
	"context"
	"encoding/json"
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
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/core-tools/hsu-master/api/proto"
)

const (
	master  = "/usr/local/bin/hsu-master"
	crasher = "/usr/local/bin/hsu-master-crashpoints" // the same, with crash points and faults
	worker  = "/usr/local/bin/hsu-worker"
	service = "hsu-master.service"
	socket  = "hsu-master.socket"
	address = "127.0.0.1:50051"
	workers = 4
)

func TestMain(m *testing.M) {
	for _, program := range []string{master, crasher, worker} {
		if err := copyFile("/share/"+filepath.Base(program), program); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o755)
}

// command runs a program and returns its output.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		journal, _ := exec.Command("journalctl", "--no-pager", "-n", "60", "-u", service, "-u", socket).CombinedOutput()
		t.Fatalf("%s %v: %v\n%s\njournal:\n%s", name, args, err, output, journal)
	}
	return strings.TrimSpace(string(output))
}

func property(t *testing.T, name string) string {
	t.Helper()
	return command(t, "systemctl", "show", "--value", "-p", name, service)
}

type state struct {
	Status         string `json:"status"`
	Scope          string `json:"scope"`
	MasterPID      int    `json:"master_pid"`
	ProcessedCount int64  `json:"processed_count"`
	Workers        []struct {
		ID          string `json:"id"`
		Status      string `json:"status"`
		Reason      string `json:"reason"`
		PID         int    `json:"pid"`
		Token       string `json:"token"`
		Incarnation int    `json:"incarnation"`
		LastExit    *struct {
			Signal *string `json:"signal"`
			Known  bool    `json:"known"`
		} `json:"last_exit"`
	} `json:"workers"`
}

func dump(t *testing.T) (state, error) {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), master, "state", "dump", "--json")
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		return state{}, fmt.Errorf("%w: %s", err, &stderr)
	}
	var s state
	return s, json.Unmarshal(output, &s)
}

// waitFor polls until the condition holds; its error describes the missing condition.
func waitFor(t *testing.T, within time.Duration, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			journal, _ := exec.Command("journalctl", "--no-pager", "-n", "60", "-u", service).CombinedOutput()
			t.Fatalf("not within %v: %v\njournal:\n%s", within, err, journal)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// ready waits until a master other than that with the given PID runs all workers.
func ready(t *testing.T, other int) (s state) {
	t.Helper()
	waitFor(t, 60*time.Second, func() (err error) {
		if s, err = dump(t); err != nil {
			return err
		}
		running := 0
		for _, w := range s.Workers {
			if w.Status == "running" {
				running++
			}
		}
		if s.MasterPID == 0 || s.MasterPID == other || s.Status != "running" || running != workers {
			return fmt.Errorf("state is %+v", s)
		}
		return nil
	})
	return s
}

func install(t *testing.T) state {
	t.Helper()
	return installProgram(t, master)
}

func installProgram(t *testing.T, program string, flags ...string) state {
	t.Helper()
	args := []string{"systemd", "install", "--enable", "--worker-count", strconv.Itoa(workers)}
	if !slices.Contains(flags, "--worker-path") {
		args = append(args, "--worker-path", worker)
	}
	cleanUpService(t)
	command(t, program, append(args, flags...)...)
	return ready(t, 0)
}

// cleanUpService uninstalls the service and removes its state at the end of the test. No process may be left then.
func cleanUpService(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		if output, err := exec.Command(master, "systemd", "uninstall").CombinedOutput(); err != nil {
			t.Errorf("uninstall: %v\n%s", err, output)
		}
		if left := ours(t); len(left) > 0 {
			t.Errorf("processes left: %v", left)
		}
		for _, dir := range []string{"/var/lib/hsu-master", "/run/hsu-master"} {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		}
	})
}

// ours lists the processes that a master has started, by their environment.
func ours(t *testing.T) []string {
	t.Helper()
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range environs {
		if env, err := os.ReadFile(path); err == nil && bytes.Contains(env, []byte("HSU_WORKER_TOKEN=")) {
			found = append(found, path)
		}
	}
	return found
}

// load calls the master from several connections until stop, and repeatedly dials it.
type load struct {
	sent, acknowledged, dials, refused atomic.Int64
	stop                               context.CancelFunc
	done                               sync.WaitGroup
}

func startLoad(t *testing.T) *load {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l := &load{stop: stop}
	for range 8 {
		l.done.Go(func() {
			conn, err := grpc.NewClient("passthrough:///"+address,
				grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close() }()
			client := proto.NewMyBusinessServiceClient(conn)
			for ctx.Err() == nil {
				l.sent.Add(1)
				call, cancel := context.WithTimeout(ctx, 10*time.Second)
				if _, err := client.ProcessData(call, &proto.ProcessRequest{Data: "x"},
					grpc.WaitForReady(true)); err == nil {
					l.acknowledged.Add(1)
				}
				cancel()
			}
		})
	}
	l.done.Go(func() {
		for ctx.Err() == nil {
			l.dials.Add(1)
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			if errors.Is(err, syscall.ECONNREFUSED) {
				l.refused.Add(1)
			}
			if err == nil {
				_ = conn.Close()
			}
			time.Sleep(time.Millisecond) // a pace, so that the queue of connections does not limit the test
		}
	})
	return l
}

func (l *load) end() {
	l.stop()
	l.done.Wait()
}

func TestMasterKilledTenTimesUnderLoad(t *testing.T) {
	for _, test := range []struct {
		name string
		kill []string
	}{
		{"the master only", []string{"kill", "--kill-whom=main", "-s", "KILL", service}},
		{"the service", []string{"kill", "-s", "KILL", service}},
	} {
		t.Run(test.name, func(t *testing.T) { killTenTimesUnderLoad(t, test.kill...) })
	}
}

func killTenTimesUnderLoad(t *testing.T, kill ...string) {
	t.Helper()
	first := install(t)
	if text := property(t, "StatusText"); !strings.Contains(text, "of 4 workers ready") {
		t.Errorf("STATUS= is %q, want how many workers are ready", text)
	}
	l := startLoad(t)
	last := first
	for round := range 10 {
		before := l.acknowledged.Load()
		waitFor(t, 30*time.Second, func() error {
			if l.acknowledged.Load() < before+20 {
				return errors.New("no requests are answered")
			}
			return nil
		})
		command(t, "systemctl", kill...)
		last = ready(t, last.MasterPID)
		// The master tells systemd only after it has told everyone else.
		waitFor(t, 30*time.Second, func() error {
			if got := property(t, "ActiveState"); got != "active" {
				return fmt.Errorf("round %d: service is %s", round, got)
			}
			return nil
		})
		for i, w := range last.Workers {
			if w.PID != first.Workers[i].PID || w.Incarnation != 1 {
				t.Errorf("round %d: %s is process %d of incarnation %d, want %d of 1",
					round, w.ID, w.PID, w.Incarnation, first.Workers[i].PID)
			}
		}
	}
	l.end()
	s, err := dump(t)
	if err != nil {
		t.Fatal(err)
	}
	if s.ProcessedCount < l.acknowledged.Load() || s.ProcessedCount > l.sent.Load() {
		t.Errorf("count = %d, want from %d acknowledged to %d sent",
			s.ProcessedCount, l.acknowledged.Load(), l.sent.Load())
	}
	if l.refused.Load() != 0 {
		t.Errorf("%d of %d connections were refused", l.refused.Load(), l.dials.Load())
	}
	t.Logf("%d sent, %d acknowledged, %d counted, %d connections, %d refused",
		l.sent.Load(), l.acknowledged.Load(), s.ProcessedCount, l.dials.Load(), l.refused.Load())
}

func TestStopLeavesNoProcess(t *testing.T) {
	install(t)
	if n := len(ours(t)); n != workers {
		t.Fatalf("%d processes are ours, want %d", n, workers)
	}
	command(t, "systemctl", "stop", socket, service)
	if left := ours(t); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
	if got := property(t, "Result"); got != "success" {
		t.Errorf("the service ended with %s", got)
	}
	// The state file keeps the workers, and the next start restores them.
	command(t, "systemctl", "start", socket, service)
	ready(t, 0)
}

// dropIn changes settings of the service for one test.
func dropIn(t *testing.T, settings string) {
	t.Helper()
	dir := "/etc/systemd/system/hsu-master.service.d"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.WriteFile(dir+"/test.conf", []byte("[Service]\n"+settings+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestMasterThatHangsIsRestartedByTheWatchdog(t *testing.T) {
	dropIn(t, "WatchdogSec=10s") // much longer than a master may be late on a busy machine
	first := install(t)
	if err := syscall.Kill(first.MasterPID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	second := ready(t, first.MasterPID)
	for i, w := range second.Workers {
		if w.PID != first.Workers[i].PID {
			t.Errorf("%s is process %d, want %d still", w.ID, w.PID, first.Workers[i].PID)
		}
	}
}

// The master's process is alive, but its committer waits for a disk that never answers: it reports no error, and
// the watchdog acts.
func TestMasterWhoseCommitterIsStuckIsRestartedByTheWatchdog(t *testing.T) {
	faults := t.TempDir()
	dropIn(t, "WatchdogSec=12s\nEnvironment=HSU_FAULT_DIR="+faults)
	first := installProgram(t, crasher)
	l := startLoad(t)
	waitFor(t, 30*time.Second, func() error {
		if l.acknowledged.Load() < 20 {
			return errors.New("no requests are answered")
		}
		return nil
	})
	fault := filepath.Join(faults, "commit")
	if err := os.WriteFile(fault, []byte("hang"), 0o644); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 90*time.Second, func() error {
		if n := property(t, "NRestarts"); n == "0" {
			return errors.New("it was not restarted")
		}
		return nil
	})
	// The next master must not hang in its start.
	if err := os.Remove(fault); err != nil {
		t.Fatal(err)
	}
	second := ready(t, first.MasterPID)
	for i, w := range second.Workers {
		if w.PID != first.Workers[i].PID || w.Incarnation != 1 {
			t.Errorf("%s is process %d of incarnation %d, want %d of 1 still",
				w.ID, w.PID, w.Incarnation, first.Workers[i].PID)
		}
	}
	before := l.acknowledged.Load()
	waitFor(t, 30*time.Second, func() error {
		if l.acknowledged.Load() < before+20 {
			return errors.New("no requests are answered")
		}
		return nil
	})
	l.end()
	s, err := dump(t)
	if err != nil {
		t.Fatal(err)
	}
	if s.ProcessedCount < l.acknowledged.Load() || s.ProcessedCount > l.sent.Load() {
		t.Errorf("count = %d, want from %d acknowledged to %d sent",
			s.ProcessedCount, l.acknowledged.Load(), l.sent.Load())
	}
	journal := command(t, "journalctl", "--no-pager", "-u", service)
	if !strings.Contains(journal, "master self-check failed") || !strings.Contains(journal, "Watchdog timeout") {
		t.Errorf("the journal does not say why:\n%s", journal)
	}
	// The master's lines have their priority, and only the journal's time.
	failures := command(t, "journalctl", "--no-pager", "-o", "cat", "-p", "err", "-u", service)
	if !strings.Contains(failures, `level=ERROR msg="master self-check failed"`) ||
		strings.Contains(failures, "level=INFO") || strings.Contains(failures, "time=") {
		t.Errorf("the journal has as errors:\n%s", failures)
	}
}

// TestExitCodeOfAWorkerThatDiedUnwatched needs Linux 6.15, which keeps the exit code.
func TestExitCodeOfAWorkerThatDiedUnwatched(t *testing.T) {
	first := install(t)
	victim := first.Workers[1]
	// A stopped master watches no worker, and a dead one gets no notification.
	for _, kill := range []struct {
		pid int
		sig syscall.Signal
	}{{first.MasterPID, syscall.SIGSTOP}, {victim.PID, syscall.SIGKILL}, {first.MasterPID, syscall.SIGKILL}} {
		if err := syscall.Kill(kill.pid, kill.sig); err != nil {
			t.Fatal(err)
		}
		if kill.sig == syscall.SIGSTOP {
			awaitStopped(t, kill.pid)
		}
	}
	second := ready(t, first.MasterPID)
	w := second.Workers[1]
	if w.PID == victim.PID || w.Incarnation != 2 {
		t.Errorf("worker is process %d of incarnation %d, want a new one", w.PID, w.Incarnation)
	}
	if w.LastExit == nil || !w.LastExit.Known || w.LastExit.Signal == nil || *w.LastExit.Signal != "SIGKILL" {
		t.Errorf("last exit = %+v, want SIGKILL, from the handle that systemd kept", w.LastExit)
	}
}

// awaitStopped returns when each thread of a process that got SIGSTOP has stopped.
func awaitStopped(t *testing.T, pid int) {
	t.Helper()
	waitFor(t, 30*time.Second, func() error {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		if err != nil || len(tasks) == 0 {
			return fmt.Errorf("process %d has no threads: %w", pid, err)
		}
		for _, task := range tasks {
			// A thread that has ended meanwhile is gone at the next look.
			text, err := os.ReadFile(task)
			if err != nil {
				return err
			}
			if !bytes.Contains(text, []byte("\nState:\tT")) {
				return fmt.Errorf("%s runs: %s", task, text)
			}
		}
		return nil
	})
}

func TestEachWorkerHasACgroupOfItsOwn(t *testing.T) {
	s := install(t)
	for _, w := range s.Workers {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", w.PID))
		if err != nil {
			t.Fatal(err)
		}
		if want := "/hsu.slice/" + scopeOf(t) + "/" + w.ID + "." + w.Token; !strings.Contains(string(text), want) {
			t.Errorf("%s is in %q, want %s", w.ID, text, want)
		}
	}
}

func TestSocketStartsTheService(t *testing.T) {
	install(t)
	command(t, "systemctl", "stop", service)
	if left := ours(t); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	resp, err := proto.NewMyBusinessServiceClient(conn).ProcessData(t.Context(), &proto.ProcessRequest{Data: "wake up"})
	if err != nil || resp.GetResult() != "Processed: wake up" {
		t.Errorf("the call that starts the service got %v, %v", resp, err)
	}
}

func TestUninstallRemovesEverythingButTheState(t *testing.T) {
	install(t)
	command(t, master, "systemd", "uninstall")
	if left := ours(t); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
	for _, unit := range []string{service, socket} {
		if _, err := os.Stat("/etc/systemd/system/" + unit); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there (%v)", unit, err)
		}
	}
	s, err := dump(t)
	if err != nil || len(s.Workers) != workers {
		t.Errorf("the state has %d workers (%v), want %d", len(s.Workers), err, workers)
	}
}

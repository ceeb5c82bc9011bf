//go:build e2e && linux

package operate

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/eventtype"
)

// A change goes on when the client that waits for it is killed.
func TestChangeOutlivesItsClient(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4, "stop-first", false)
	calls := s.StartCallers(callers, harness.Once)
	for _, step := range []step{restart, newProgram, scale(6), scale(2)} {
		calls.AwaitMore(callers)
		before, last := s.prepare(step)
		client := exec.Command(s.Program, append(step.command, "--state-dir", s.State)...)
		client.Env = harness.CleanEnviron()
		if err := client.Start(); err != nil {
			t.Fatal(err)
		}
		harness.WaitFor(t, fmt.Sprintf("%q is recorded", step.command), func() error {
			if len(s.events(last)) == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		_ = client.Process.Kill()
		if err := client.Wait(); err == nil {
			t.Logf("%q was over before its client was killed", step.command)
		}
		if !s.awaitOutcome(step, before, last) {
			t.Errorf("%q: recorded is %+v", step.command, s.events(last))
		}
		calls.AwaitMore(callers)
		calls.WantNoFailures()
	}
	calls.Stop()
	calls.WantNoFailures()
	s.wantCounted(calls)
	s.end()
}

// Of two contradictory commands at the same time, the one that is recorded last prevails. Both end, and neither
// leaves an obstacle for the next one.
func TestContradictoryCommands(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3, "stop-first", false)
	begin := s.lastEvent()
	for _, test := range []struct{ one, other, repair string }{
		{"worker stop a-0", "worker start a-0", "worker start a-0"},
		{"worker restart a", "worker stop a-1", "worker start a-1"},
		{"worker scale a=5", "worker scale a=2", "worker scale a=3"},
		{"unit disable a", "unit enable a", "unit enable a"},
		{"worker restart a", "worker scale a=1", "worker scale a=3"},
	} {
		for range harness.Times(2) {
			var both sync.WaitGroup
			for _, command := range []string{test.one, test.other} {
				both.Go(func() {
					if r := s.CLI(strings.Fields(command)...); r.Code > 1 || r.Code == 1 && r.Stdout+r.Stderr == "" {
						t.Errorf("%s beside %s: %+v", command, test.one, r)
					}
				})
			}
			both.Wait()
			s.awaitRecorded(test.one+" and "+test.other, begin)
			if r := s.CLI(strings.Fields(test.repair)...); r.Code != 0 {
				t.Errorf("%s after %s and %s: %+v", test.repair, test.one, test.other, r)
			}
			s.AwaitRunning(3)
		}
	}
	s.end()
}

// awaitRecorded returns when the workers are what operators have recorded since the event, at which there were three.
func (s *site) awaitRecorded(what string, begin uint64) {
	s.T.Helper()
	harness.WaitFor(s.T, "the outcome of "+what, func() error {
		d, err := s.TryDump()
		if err != nil {
			return err
		}
		replicas, disabled, stopped := 3, false, map[string]bool{}
		for _, e := range s.events(begin) {
			switch e.Type {
			case eventtype.Scale:
				if _, err := fmt.Sscanf(e.Detail, "a: %d replicas", &replicas); err != nil {
					s.T.Fatal(err)
				}
			case eventtype.Stop, eventtype.Start:
				stopped[e.Worker] = e.Type == eventtype.Stop
			case "disable", "enable":
				disabled = e.Type == "disable"
			}
		}
		if disabled {
			replicas = 0
		}
		if len(d.Workers) != replicas {
			return fmt.Errorf("there are %d workers, %d are recorded", len(d.Workers), replicas)
		}
		for _, w := range d.Workers {
			if stopped[w.ID] != (w.Status == "stopped" && w.PID == 0) || stopped[w.ID] == w.Running() {
				return fmt.Errorf("%+v, recorded as stopped: %t", w, stopped[w.ID])
			}
		}
		return nil
	})
}

// A stop of a worker that others depend on, and a scale that the unit has no ports for, change nothing.
func TestChangesThatAreRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, "stop-first", false)
	port := harness.FreePort(t)
	s.write("hsu.yaml", config("./program", 2, "stop-first")+fmt.Sprintf(`
  user:
    kind: managed
    command: [sleep, "1000"]
    depends_on: {a: ready}
  lone:
    command: [./program]
    services: [test.None]
    port: %d
`, port))
	if r := s.CLI("reload"); r.Code != 0 {
		t.Fatalf("reload: %+v", r)
	}
	want := s.Dump().Instances()
	calls := s.StartCallers(callers, harness.Once)
	for _, test := range []struct{ command, message string }{
		{"worker stop a", "running workers depend on a-0: stop user-0 too, or use --force"},
		{"worker stop a-1", "running workers depend on a-1: stop user-0 too, or use --force"},
		{"unit disable a", "running workers depend on a-0: stop user-0 too, or use --force"},
		{"worker scale lone=2", fmt.Sprint(port)},
		{"worker scale a=1001", "must be a number of workers from 0 to 1000"},
	} {
		calls.AwaitMore(callers)
		r := s.CLI(strings.Fields(test.command)...)
		if r.Code == 0 || r.Code == 3 || !strings.Contains(r.Stderr, test.message) {
			t.Errorf("%s: %+v, want %q", test.command, r, test.message)
		}
		s.Dump().WantInstances(t, want)
	}
	calls.AwaitMore(callers)
	calls.Stop()
	calls.WantNoFailures()
	if r := s.CLI("worker", "stop", "a", "--force"); r.Code != 0 {
		t.Errorf("stop --force: %+v", r)
	}
	after := s.Dump()
	if a, user := after.Worker(t, "a-0"), after.Worker(t, "user-0"); a.PID != 0 || user.PID != want["user-0"].PID {
		t.Errorf("after stop --force: %+v and %+v", a, user)
	}
	s.end()
}

// A scale beyond the ports that the machine has fails and says why. It takes no call from the workers that run, and can
// be taken back.
func TestScaleBeyondThePorts(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		harness.SkipOutsideCI(t, "needs root: a network namespace")
	}
	const ports = 24
	s := &site{Host: harness.NewHost(t)}
	begin := s.Begin
	s.Begin = func(cmd *exec.Cmd) error { return startInNetwork(cmd, ports, begin) }
	s.KeepListener()
	s.launch(2, "stop-first")
	calls := s.StartCallers(callers, harness.Once)
	calls.AwaitMore(callers)
	before := s.Dump()
	r := s.CLI("worker", "scale", "a=40", "--timeout", "20s")
	if r.Code != 1 || !strings.Contains(r.Stderr, "port") {
		t.Errorf("scale: %+v", r)
	}
	calls.AwaitMore(callers)
	calls.WantNoFailures()
	s.perform(scale(2))
	calls.AwaitMore(callers)
	calls.Stop()
	calls.WantNoFailures()
	s.Dump().WantInstances(t, before.Instances())
	s.wantCounted(calls)
	s.end()
}

// startInNetwork starts a master in a network namespace of its own that has that many ports for its workers.
func startInNetwork(cmd *exec.Cmd, ports int, begin func(*exec.Cmd) error) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		started <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(socket) }()
			loopback, err := unix.NewIfreq("lo")
			if err != nil {
				return err
			}
			loopback.SetUint16(unix.IFF_UP)
			if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, loopback); err != nil {
				return err
			}
			const first = 40_000
			span := fmt.Sprintf("%d %d", first, first+ports-1)
			if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte(span), 0); err != nil {
				return err
			}
			return begin(cmd)
		}()
	}()
	return <-started
}

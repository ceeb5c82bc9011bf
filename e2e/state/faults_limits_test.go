//go:build e2e && linux

package state

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/e2e/harness"
)

// limit sets a soft limit of the running master and returns a function that restores the old one.
func limit(m *harness.Master, resource int, soft uint64) func() {
	m.Host.T.Helper()
	var before unix.Rlimit
	err := unix.Prlimit(m.PID, resource, nil, &before)
	if err == nil {
		err = unix.Prlimit(m.PID, resource, &unix.Rlimit{Cur: soft, Max: before.Max}, nil)
	}
	if err != nil {
		m.Host.T.Fatal(err)
	}
	return func() {
		m.Host.T.Helper()
		if err := unix.Prlimit(m.PID, resource, &before, nil); err != nil {
			m.Host.T.Fatal(err)
		}
	}
}

// limited starts a master with a limit in the syntax of prlimit(1).
func limited(h *harness.Host, limit string) *harness.Master {
	h.T.Helper()
	return h.Exec("prlimit", nil, append([]string{limit, h.Program}, h.RunArgs()...)...)
}

// No file may grow, not even the master's log.
func TestLimitOnTheSizeOfFiles(t *testing.T) {
	survive(t, func(h *harness.Host) outage {
		h.Flags = append(harness.Workers(steady), "--restart-budget", "1/5m")
		var lift func()
		return outage{
			reason: "file too large: raise the limit on the size of files, and service resumes by itself",
			begin:  func(m *harness.Master) { lift = limit(m, unix.RLIMIT_FSIZE, 4096) },
			end:    func() { lift() },
			again: func() *harness.Master {
				m := limited(h, "--fsize=4096:")
				m.AwaitServing()
				lift = func() { limit(m, unix.RLIMIT_FSIZE, unix.RLIM_INFINITY) }
				return m
			},
		}
	})
}

// A master that is told to stop does so even if it cannot record that, and reports the unrecorded state.
func TestMasterThatEndsWhileNothingCanBeWritten(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"stop": syscall.SIGTERM, "detach": syscall.SIGUSR1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := harness.NewHost(t, harness.Workers(steady)...)
			m := h.Start()
			before := awaitSteady(h, harness.Worker.Running).Instances()
			load := h.StartLoad(8)
			load.AwaitMore(100)
			limit(m, unix.RLIMIT_FSIZE, 4096)
			awaitRefusal(h, "file too large")
			load.Stop()
			m.Signal(signal)
			m.WantExit(1)
			if signal == syscall.SIGTERM {
				h.WantNothingLeft()
			}
			if got, acked := h.Dump().ProcessedCount, load.Acked.Load(); got < acked {
				t.Errorf("processed_count = %d, and %d were acknowledged", got, acked)
			}
			m = h.Start()
			after := awaitSteady(h, harness.Worker.Running).Instances()
			if diff := cmp.Diff(before, after); signal == syscall.SIGUSR1 && diff != "" {
				t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
			}
			wantCounted(h, load)
			m.Stop()
			h.WantNothingLeft()
		})
	}
}

// Without free descriptors, connected clients are served; new clients and worker starts wait.
func TestMasterWithoutDescriptors(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, append(harness.Workers(steady), "--restart-budget", "1/5m")...)
	m := h.Start()
	before := awaitSteady(h, harness.Worker.Running)
	load := h.StartLoad(8)
	load.AwaitMore(100)
	lift := limit(m, unix.RLIMIT_NOFILE, 3) // all of which are in use
	h.KillWorker(before.Workers[0].PID)
	load.AwaitMore(100)

	harness.WaitFor(t, "the master cannot start the worker", func() error {
		if log := m.Log(); !strings.Contains(log, "too many open files") {
			return errors.New(log)
		}
		return nil
	})
	load.Stop()
	// From here on, because these two wait for 10 to 30 s only.
	latecomer, administrator := make(chan error, 1), make(chan harness.Result, 1)
	client := proto.NewMyBusinessServiceClient(h.Dial())
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
		defer cancel()
		_, err := client.ProcessData(ctx, &proto.ProcessRequest{Data: "late"}, grpc.WaitForReady(true))
		latecomer <- err
	}()
	go func() { administrator <- h.CLI("worker", "list") }() // status fails while a worker does not run
	begun, used := time.Now(), ticks(m)
	<-time.After(time.Second) // for the measurement
	used = ticks(m) - used
	if percent := float64(used) / time.Since(begun).Seconds(); percent > 30 {
		t.Errorf("the master used %.0f%% of a processor while nothing was asked of it", percent)
	}
	for _, w := range before.Workers[1:] {
		harness.WorkerStatus(t, w.Port)
	}
	select {
	case err := <-latecomer:
		t.Errorf("the latecomer was answered: %v", err)
	case r := <-administrator:
		t.Errorf("the administrator was answered: %+v", r)
	default:
	}

	lift()
	if err := <-latecomer; err != nil {
		t.Errorf("the latecomer: %v", err)
	}
	if r := <-administrator; r.Code != 0 {
		t.Errorf("the administrator: %+v", r)
	}
	after := awaitSteady(h, harness.Worker.Running)
	wantOnlyRestarted(h, before, after, before.Workers[0].ID)
	if got, acked, sent := h.Dump().ProcessedCount, load.Acked.Load()+1, load.Sent.Load()+1; got < acked || got > sent {
		t.Errorf("processed_count = %d, want it between %d acknowledged and %d sent", got, acked, sent)
	}
	m.Stop()
	h.WantNothingLeft()
}

// ticks returns the processor time that the master has used, in hundredths of a second.
func ticks(m *harness.Master) int {
	m.Host.T.Helper()
	f, err := harness.ReadStat(fmt.Sprintf("/proc/%d", m.PID))
	if err != nil {
		m.Host.T.Fatal(err)
	}
	return f.CPUTicks
}

func TestMasterThatHasTooFewDescriptorsFromTheStartSaysSoAndTouchesNoWorker(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(steady)...)
	m := h.Start()
	before := awaitSteady(h, harness.Worker.Running).Instances()
	m.Kill()
	m = limited(h, "--nofile=10:10")
	m.WantExit(1)
	for _, want := range []string{
		"hsu-master: error: ", "too many open files", "hsu-master: hint: raise the limit on open files",
	} {
		if !strings.Contains(m.Log(), want) {
			t.Errorf("it said %q, want %q in it", m.Log(), want)
		}
	}
	m = h.Start()
	awaitSteady(h, harness.Worker.Running).WantInstances(t, before)
	m.Stop()
	h.WantNothingLeft()
}

// A user at the limit of processes cannot create threads either.
func TestMasterWithoutProcesses(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, append(harness.Workers(steady), "--restart-budget", "1/5m")...)
	h.AsNobody() // root's own processes are not limited
	m := h.Start()
	before := awaitSteady(h, harness.Worker.Running)
	load := h.StartLoad(8)
	load.AwaitMore(100)
	limit := func(n string) {
		t.Helper()
		// As the same user: whether another user may do so depends on its capabilities.
		cmd := exec.Command("prlimit", "--pid="+strconv.Itoa(m.PID), "--nproc="+n+":")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: harness.Nobody, Gid: harness.Nobody},
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	limit("1")
	h.KillWorker(before.Workers[0].PID)
	harness.WaitFor(t, "the master cannot start the worker", func() error {
		w := h.Dump().Worker(t, before.Workers[0].ID)
		if w.Status != "backoff" || !strings.Contains(w.Reason, "no more processes are allowed here (RLIMIT_NPROC") {
			return fmt.Errorf("%+v", w)
		}
		return nil
	})
	// More callers than before need more threads and other resources.
	crowd := h.StartLoad(64)
	crowd.AwaitMore(1000)
	for range 3 {
		h.CLI("status")
	}
	limit("1000")
	after := awaitSteady(h, harness.Worker.Running)
	wantOnlyRestarted(h, before, after, before.Workers[0].ID)
	load.Stop()
	crowd.Stop()
	acked, sent := load.Acked.Load()+crowd.Acked.Load(), load.Sent.Load()+crowd.Sent.Load()
	if got := h.Dump().ProcessedCount; got < acked || got > sent {
		t.Errorf("processed_count = %d, want it between %d acknowledged and %d sent", got, acked, sent)
	}
	m.Stop()
	h.WantNothingLeft()
}

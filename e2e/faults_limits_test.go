//go:build e2e && linux

package e2e

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
)

// limit sets a soft limit of the running master and returns a function that restores the old one.
func (m *master) limit(resource int, soft uint64) func() {
	m.h.t.Helper()
	var before unix.Rlimit
	err := unix.Prlimit(m.pid, resource, nil, &before)
	if err == nil {
		err = unix.Prlimit(m.pid, resource, &unix.Rlimit{Cur: soft, Max: before.Max}, nil)
	}
	if err != nil {
		m.h.t.Fatal(err)
	}
	return func() {
		m.h.t.Helper()
		if err := unix.Prlimit(m.pid, resource, &before, nil); err != nil {
			m.h.t.Fatal(err)
		}
	}
}

// limited starts a master with a limit in the syntax of prlimit(1).
func (h *host) limited(limit string) *master {
	h.t.Helper()
	return h.execute("prlimit", nil, append([]string{limit, h.program}, h.runArgs()...)...)
}

// No file may grow, not even the master's log.
func TestLimitOnTheSizeOfFiles(t *testing.T) {
	survive(t, func(h *host) outage {
		h.flags = append(workers(steady), "--restart-budget", "1/5m")
		var lift func()
		return outage{
			reason: "file too large: raise the limit on the size of files, and service resumes by itself",
			begin:  func(m *master) { lift = m.limit(unix.RLIMIT_FSIZE, 4096) },
			end:    func() { lift() },
			again: func() *master {
				m := h.limited("--fsize=4096:")
				m.awaitServing()
				lift = func() { m.limit(unix.RLIMIT_FSIZE, unix.RLIM_INFINITY) }
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
			h := newHost(t, workers(steady)...)
			m := h.start()
			before := h.awaitSteady(running).instances(t)
			load := h.startLoad(8)
			load.awaitMore(100)
			m.limit(unix.RLIMIT_FSIZE, 4096)
			h.awaitRefusal("file too large")
			load.stop()
			m.signal(signal)
			m.wantExit(1)
			if signal == syscall.SIGTERM {
				h.wantNothingLeft()
			}
			if got, acked := h.dump().ProcessedCount, load.acked.Load(); got < acked {
				t.Errorf("processed_count = %d, and %d were acknowledged", got, acked)
			}
			m = h.start()
			after := h.awaitSteady(running).instances(t)
			if diff := cmp.Diff(before, after); signal == syscall.SIGUSR1 && diff != "" {
				t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
			}
			h.wantCounted(load)
			m.stop()
			h.wantNothingLeft()
		})
	}
}

// Without free descriptors, connected clients are served; new clients and worker starts wait.
func TestMasterWithoutDescriptors(t *testing.T) {
	t.Parallel()
	h := newHost(t, append(workers(steady), "--restart-budget", "1/5m")...)
	m := h.start()
	before := h.awaitSteady(running)
	load := h.startLoad(8)
	load.awaitMore(100)
	lift := m.limit(unix.RLIMIT_NOFILE, 3) // all of which are in use
	h.killWorker(before.Workers[0].PID)
	load.awaitMore(100)

	waitFor(t, "the master cannot start the worker", func() error {
		if log := m.log(); !strings.Contains(log, "too many open files") {
			return errors.New(log)
		}
		return nil
	})
	load.stop()
	// From here on, because these two wait for 10 to 30 s only.
	latecomer, administrator := make(chan error, 1), make(chan result, 1)
	client := proto.NewMyBusinessServiceClient(h.dial())
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := client.ProcessData(ctx, &proto.ProcessRequest{Data: "late"}, grpc.WaitForReady(true))
		latecomer <- err
	}()
	go func() { administrator <- h.cli("worker", "list") }() // status fails while a worker does not run
	begun, used := time.Now(), m.ticks()
	<-time.After(time.Second) // for the measurement
	used = m.ticks() - used
	if percent := float64(used) / time.Since(begun).Seconds(); percent > 30 {
		t.Errorf("the master used %.0f%% of a processor while nothing was asked of it", percent)
	}
	for _, w := range before.Workers[1:] {
		own(t, w.Port)
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
	if r := <-administrator; r.code != 0 {
		t.Errorf("the administrator: %+v", r)
	}
	after := h.awaitSteady(running)
	h.wantOnlyRestarted(before, after, before.Workers[0].ID)
	if got, acked, sent := h.dump().ProcessedCount, load.acked.Load()+1, load.sent.Load()+1; got < acked || got > sent {
		t.Errorf("processed_count = %d, want it between %d acknowledged and %d sent", got, acked, sent)
	}
	m.stop()
	h.wantNothingLeft()
}

// ticks returns the processor time that the master has used, in hundredths of a second.
func (m *master) ticks() int {
	m.h.t.Helper()
	f, err := readStat(fmt.Sprintf("/proc/%d", m.pid))
	if err != nil {
		m.h.t.Fatal(err)
	}
	return f.ticks
}

func TestMasterThatHasTooFewDescriptorsFromTheStartSaysSoAndTouchesNoWorker(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(steady)...)
	m := h.start()
	before := h.awaitSteady(running).instances(t)
	m.kill()
	m = h.limited("--nofile=10:10")
	m.wantExit(1)
	for _, want := range []string{
		"hsu-master: error: ", "too many open files", "hsu-master: hint: raise the limit on open files",
	} {
		if !strings.Contains(m.log(), want) {
			t.Errorf("it said %q, want %q in it", m.log(), want)
		}
	}
	m = h.start()
	if diff := cmp.Diff(before, h.awaitSteady(running).instances(t)); diff != "" {
		t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
	}
	m.stop()
	h.wantNothingLeft()
}

// A user at the limit of processes cannot create threads either.
func TestMasterWithoutProcesses(t *testing.T) {
	t.Parallel()
	h := newHost(t, append(workers(steady), "--restart-budget", "1/5m")...)
	h.asNobody() // root's own processes are not limited
	m := h.start()
	before := h.awaitSteady(running)
	load := h.startLoad(8)
	load.awaitMore(100)
	limit := func(n string) {
		t.Helper()
		// As the same user: whether another user may do so depends on its capabilities.
		cmd := exec.Command("prlimit", "--pid="+strconv.Itoa(m.pid), "--nproc="+n+":")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	limit("1")
	h.killWorker(before.Workers[0].PID)
	waitFor(t, "the master cannot start the worker", func() error {
		w := h.dump().worker(t, before.Workers[0].ID)
		if w.Status != "backoff" || !strings.Contains(w.Reason, "no more processes are allowed here (RLIMIT_NPROC") {
			return fmt.Errorf("%+v", w)
		}
		return nil
	})
	// More callers than before need more threads and other resources.
	crowd := h.startLoad(64)
	crowd.awaitMore(1000)
	for range 3 {
		h.cli("status")
	}
	limit("1000")
	after := h.awaitSteady(running)
	h.wantOnlyRestarted(before, after, before.Workers[0].ID)
	load.stop()
	crowd.stop()
	acked, sent := load.acked.Load()+crowd.acked.Load(), load.sent.Load()+crowd.sent.Load()
	if got := h.dump().ProcessedCount; got < acked || got > sent {
		t.Errorf("processed_count = %d, want it between %d acknowledged and %d sent", got, acked, sent)
	}
	m.stop()
	h.wantNothingLeft()
}

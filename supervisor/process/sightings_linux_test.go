package process

import (
	"os"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/procfs"
)

// A process is read once, and its token counts as long as it lives.
func TestSightings(t *testing.T) {
	w := startWorker(t, "sleep")
	pid := w.expectPID(t, "ready")
	var reads map[int]bool
	s := &sightings{read: func(pid int, buf *[]byte) ([]byte, procfs.EnvironState) {
		reads[pid] = true
		return procfs.ReadEnviron(pid, buf)
	}}
	for pass := range 3 {
		reads = make(map[int]bool)
		if tokens := tokensOf(t, s); !tokens[w.family.Token] || tokens[""] {
			t.Errorf("pass %d: the token of a living process is missing: %v", pass, tokens)
		}
		if read := reads[pid]; read != (pass == 0) {
			t.Errorf("pass %d: the process was read: %t", pass, read)
		}
	}
	other := startWorker(t, "sleep")
	if tokens := tokensOf(t, s); !tokens[other.family.Token] {
		t.Error("the token of a new process is missing")
	}
	if err := w.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitDone(t, w.Process)
	w.Exit()
	if tokens := tokensOf(t, s); tokens[w.family.Token] {
		t.Error("the token of an ended process counts")
	}
}

// A process that reuses the PID of one that was read is read too.
func TestSightingsOfReusedPID(t *testing.T) {
	needRoot(t)
	s := &sightings{read: procfs.ReadEnviron}
	for range 200 { // another process may take the PID first
		before := startWorker(t, "sleep")
		before.expectPID(t, "ready")
		tokensOf(t, s)
		if err := before.Signal(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitDone(t, before.Process)
		before.Exit()
		last := []byte(strconv.Itoa(before.PID() - 1))
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", last, 0); err != nil {
			t.Skip("PIDs cannot be chosen here:", err)
		}
		after := startWorker(t, "sleep")
		tokens := tokensOf(t, s)
		if !tokens[after.family.Token] || tokens[before.family.Token] {
			t.Errorf("process %d was %d: the new token is seen: %t, the old one: %t", after.PID(), before.PID(),
				tokens[after.family.Token], tokens[before.family.Token])
		}
		if after.PID() == before.PID() {
			return
		}
	}
	t.Error("no process got the PID of an earlier one")
}

// A child that is read before its execve shows the environment of this process, not its own.
func TestSightingsDuringStarts(t *testing.T) {
	s := newSharedSightings()
	stop := make(chan struct{})
	var passes sync.WaitGroup
	defer passes.Wait()
	defer close(stop)
	passes.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			ctx, cancel := testDeadline()
			if _, err := s.Answer(ctx); err != nil {
				t.Error(err)
			}
			cancel()
		}
	})
	for range 20 {
		w := startWorker(t, "sleep")
		ctx, cancel := testDeadline()
		seen, err := s.Answer(ctx)
		cancel()
		if err != nil || !seen.names(w.family.Token) {
			t.Fatalf("the token of process %d is not seen: %v", w.PID(), err)
		}
	}
}

func tokensOf(t *testing.T, s *sightings) map[string]bool {
	t.Helper()
	ctx, cancel := testDeadline()
	defer cancel()
	seen, err := s.census(ctx)
	if err != nil {
		t.Fatal(err)
	}
	tokens := make(map[string]bool)
	for _, h := range seen.holders {
		tokens[h.Token] = true
	}
	return tokens
}

package process

import (
	"os"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A process is read once, and its token counts as long as it lives.
func TestSightings(t *testing.T) {
	w := startWorker(t, "sleep")
	pid := w.expectPID(t, "ready")
	var reads map[int]bool
	s := &sightings{read: func(pid int, buf *[]byte) ([]byte, environState) {
		reads[pid] = true
		return readEnviron(pid, buf)
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
	s := &sightings{read: readEnviron}
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
			if _, err := s.get(ctx); err != nil {
				t.Error(err)
			}
			cancel()
		}
	})
	for range 20 {
		w := startWorker(t, "sleep")
		ctx, cancel := testDeadline()
		seen, err := s.get(ctx)
		cancel()
		if err != nil || !seen.names(w.family.Token) {
			t.Fatalf("the token of process %d is not seen: %v", w.PID(), err)
		}
	}
}

func TestHasOwnEnviron(t *testing.T) {
	self := os.Getpid()
	tests := map[string]struct {
		stat taskStat
		want bool
	}{
		"child before execve": {taskStat{PPID: self, EnvEnd: ownEnvEnd()}, false},
		"child inside execve": {taskStat{PPID: self}, false},
		"child":               {taskStat{PPID: self, EnvEnd: ownEnvEnd() + 8}, true},
		"other process":       {taskStat{PPID: 1, EnvEnd: ownEnvEnd()}, true},
		"hidden process":      {taskStat{PPID: 1}, true},
	}
	for name, tt := range tests {
		if got := hasOwnEnviron(tt.stat); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
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

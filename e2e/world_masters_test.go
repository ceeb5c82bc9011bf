//go:build e2e && linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// More than one master at a time.

// Five masters start at the same moment on one state, repeatedly: one of them gets it, and the workers stay the
// same all the time.
func TestOfMastersThatStartTogetherOnOneStateExactlyOneServes(t *testing.T) {
	t.Parallel()
	const rounds, racers = 4, 5
	h := newHost(t, workers(2)...)
	var want map[string]instance
	for round := range rounds {
		ports := make([]int, racers)
		field := make([]*master, racers)
		for i := range field {
			ports[i] = freePort(t)
		}
		for i := range field {
			h.port = ports[i] // so that a port in use does not decide
			field[i] = h.launch(h.program, nil)
		}
		var winner *master
		waitFor(t, "all but one have given up", func() error {
			winner = nil
			left := 0
			for i, m := range field {
				if m.running() {
					winner, h.port = m, ports[i]
					left++
				}
			}
			if left > 1 {
				return fmt.Errorf("%d are left", left)
			}
			return nil
		})
		if winner == nil {
			t.Fatalf("round %d: none is left", round)
		}
		for _, m := range field {
			if m != winner {
				m.wantExit(4)
				want := fmt.Sprintf("another master (pid %d) holds the state", winner.pid)
				if !strings.Contains(m.log(), want) {
					t.Errorf("round %d: a loser said %q, want %q", round, m.log(), want)
				}
			}
		}
		winner.awaitServing()
		d := h.awaitRunning(2)
		h.wantNoTwin(d)
		if want == nil {
			want = d.instances(t)
		} else if diff := cmp.Diff(want, d.instances(t)); diff != "" {
			t.Fatalf("round %d: the workers are not what they were (-before +after):\n%s", round, diff)
		}
		if round == rounds-1 {
			h.ask("of the last of them")
			winner.stop()
		} else {
			winner.kill()
		}
	}
	h.wantNothingLeft()
}

// Two masters with different states want the same port: one gets it; the other reports that, starts no worker and
// harms none.
func TestOfMastersThatStartTogetherOnOnePortTheLoserStartsNoWorker(t *testing.T) {
	t.Parallel()
	const rounds = 4
	one, other := newHost(t, workers(2)...), newHost(t, workers(2)...)
	other.port = one.port
	for round := range rounds {
		first, second := one.launch(one.program, nil), other.launch(other.program, nil)
		waitFor(t, "one of them gives up", func() error {
			if first.running() && second.running() {
				return fmt.Errorf("both run")
			}
			return nil
		})
		winner, loser := first, second
		if !first.running() {
			winner, loser = second, first
		}
		loser.wantExit(1)
		if got := loser.log(); !strings.Contains(got, "port in use") ||
			!strings.Contains(got, "choose another --port") {
			t.Errorf("round %d: the loser said %q", round, got)
		}
		winner.awaitServing()
		winner.h.wantNoTwin(winner.h.awaitRunning(2))
		winner.h.ask("of the one that has the port")
		for id, pids := range loser.h.leaders() {
			// Workers that an earlier run of the loser left go on running.
			if len(pids) != 1 {
				t.Errorf("round %d: the loser's %s is %v", round, id, pids)
			}
		}
		winner.kill()
	}
	for _, h := range []*host{one, other} {
		m := h.start()
		h.wantNoTwin(h.awaitRunning(2))
		m.stop()
		h.wantNothingLeft()
	}
}

// The state of a running master is copied, and a second master runs on the copy. Neither controls the other's
// workers, even after both were killed.
func TestMasterOnACopiedStateRunsBesideTheOriginal(t *testing.T) {
	t.Parallel()
	original, twin := newHost(t, workers(2)...), newHost(t, workers(2)...)
	m := original.start()
	before := original.awaitRunning(2)
	want := before.instances(t)
	// A stopped master writes nothing, so that the copy is consistent.
	m.signal(syscall.SIGSTOP)
	awaitStopped(t, m.pid)
	copyState(t, original, twin)
	m.signal(syscall.SIGCONT)

	other := twin.start()
	theirs := twin.awaitRunning(2)
	for _, w := range theirs.Workers {
		if was := before.worker(t, w.ID); w.PID == was.PID || w.Token == was.Token || w.Port == was.Port {
			t.Errorf("the copy took the original's %s: %+v", w.ID, w)
		}
	}
	for round := range 2 {
		m.kill()
		m = original.start()
		if diff := cmp.Diff(want, original.awaitRunning(2).instances(t)); diff != "" {
			t.Errorf("round %d: the original's workers are not what they were (-before +after):\n%s", round, diff)
		}
		other.kill()
		other = twin.start()
		if diff := cmp.Diff(theirs.instances(t), twin.awaitRunning(2).instances(t)); diff != "" {
			t.Errorf("round %d: the copy's workers are not what they were (-before +after):\n%s", round, diff)
		}
	}
	original.ask("of the original")
	twin.ask("of the copy")
	original.wantNoTwin(original.awaitRunning(2))
	twin.wantNoTwin(twin.awaitRunning(2))

	// The death of a worker of one master does not affect the other master.
	original.killWorker(before.worker(t, "worker-0").PID)
	original.awaitWorkers(2, "run, one of them anew", func(d dump, w worker) bool {
		return running(d, w) && (w.ID == "worker-1" || w.Incarnation == 2)
	})
	other.stop()
	original.awaitRunning(2)
	m.stop()
	original.wantNothingLeft()
	twin.wantNothingLeft()
}

// copyState copies a state directory, except the sockets in it.
func copyState(t *testing.T, from, to *host) {
	t.Helper()
	if err := os.Mkdir(to.state, 0o700); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(from.state)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			continue // logs, backups and sockets
		}
		content, err := os.ReadFile(filepath.Join(from.state, entry.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to.state, entry.Name()), content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

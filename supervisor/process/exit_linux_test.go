package process

import (
	"encoding/json"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

func TestExitOfOwnChild(t *testing.T) {
	tests := []struct {
		behaviour, arg string
		want           identity.Exit
	}{
		{"exit", "0", identity.Exit{Source: identity.ExitWait}},
		{"exit", "3", identity.Exit{Code: 3, Source: identity.ExitWait}},
		{"exit", "255", identity.Exit{Code: 255, Source: identity.ExitWait}},
		{"raise", "9", identity.Exit{Signal: syscall.SIGKILL, Source: identity.ExitWait}},
		{"raise", "15", identity.Exit{Signal: syscall.SIGTERM, Source: identity.ExitWait}},
	}
	for _, tt := range tests {
		w := startWorker(t, tt.behaviour, tt.arg)
		waitDone(t, w.Process)
		if got := w.Exit(); got != tt.want {
			t.Errorf("%s %s: Exit() = %+v, want %+v", tt.behaviour, tt.arg, got, tt.want)
		}
	}
}

func TestExitBeforeDoneAndAfterClose(t *testing.T) {
	w := startWorker(t, "sleep")
	w.expect(t, "ready")
	p := watchPID(t, w.PID())
	if got := p.Exit(); got != (identity.Exit{}) {
		t.Errorf("Exit() of a living process = %+v, want unknown", got)
	}
	if err := p.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := p.Signal(unix.SIGKILL); err == nil {
		t.Error("Signal after Close succeeded")
	}
	select {
	case <-w.Done():
		t.Error("Close ended the process")
	case <-p.Done():
		t.Error("Close closed Done")
	default:
	}
	if got := p.Exit(); got != (identity.Exit{}) {
		t.Errorf("Exit() after Close = %+v, want unknown", got)
	}
}

// The exit code of the first thread is not that of the process.
func TestExitOfProcessWithDeadLeader(t *testing.T) {
	w := startWorker(t, "dead-leader")
	w.expect(t, "ready")
	if s, err := procfs.ReadStat(w.PID()); err != nil || s.State != 'Z' {
		t.Fatalf("the first thread is in state %c (%v), want Z", s.State, err)
	}
	select {
	case <-w.Done():
		t.Fatal("Done is closed while threads live")
	default:
	}
	if err := w.Signal(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	waitDone(t, w.Process)
	if got, want := w.Exit(), (identity.Exit{Code: 3, Source: identity.ExitWait}); got != want {
		t.Errorf("Exit() = %+v, want %+v", got, want)
	}
}

// startAdopted returns a worker whose master is dead. Its new parent reaps it ("reap") or never does ("hold").
func startAdopted(t *testing.T, parent, token, behaviour string, args ...string) (*worker, identity.Process) {
	t.Helper()
	adopter := startWorker(t, "adopter", append([]string{parent, token, behaviour}, args...)...)
	var id identity.Process
	if err := json.Unmarshal([]byte(adopter.expect(t, "identity")), &id); err != nil {
		t.Fatal(err)
	}
	// If the worker and the adopter are ready, the master is dead.
	adopter.expect(t, "ready "+strconv.Itoa(id.PID))
	adopter.expect(t, "ready "+strconv.Itoa(adopter.PID()))
	return adopter, id
}

func TestExitOfAdoptedProcess(t *testing.T) {
	deaths := []struct {
		name string
		kill syscall.Signal
		want identity.Exit
	}{
		{"code", unix.SIGUSR1, identity.Exit{Code: 6}},
		{"signal", unix.SIGKILL, identity.Exit{Signal: unix.SIGKILL}},
	}
	const token = "adopted"
	for _, parent := range []string{"reap", "hold"} {
		for _, death := range deaths {
			t.Run(parent+" "+death.name, func(t *testing.T) {
				_, id := startAdopted(t, parent, token, "exit-on-usr1", "6")
				p, err := Open(id, token)
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				if err := p.Signal(death.kill); err != nil {
					t.Fatal(err)
				}
				waitDone(t, p)
				start := time.Now()
				got := p.Exit()
				// A loose bound: the test must only exclude a wait for a parent that never reaps.
				if took := time.Since(start); took > patience/2 {
					t.Errorf("Exit took %v", took)
				}
				switch {
				case parent == "hold" && got.Source != identity.ExitStat:
					t.Errorf("source %v, want stat: nobody reaps it", got.Source)
				case got.Source == identity.ExitUnknown && !hasExitInfo(t):
					t.Skip("reaped at once, and needs Linux 6.15 then")
				case got.Source != identity.ExitStat && got.Source != identity.ExitPidfd:
					t.Errorf("source %v, want stat or pidfd", got.Source)
				}
				if got.Code != death.want.Code || got.Signal != death.want.Signal {
					t.Errorf("Exit() = %+v, want %+v", got, death.want)
				}
			})
		}
	}
}

// hasExitInfo reaps a child without using its pidfd.
func hasExitInfo(t *testing.T) bool {
	w := startWorker(t, "exit", "0")
	waitDone(t, w.Process)
	w.Exit()
	found := false
	_ = w.control(func(fd int) error {
		_, found = exitInfo(fd)
		return nil
	})
	return found
}

func TestExitInfoAfterAnotherReaped(t *testing.T) {
	if !hasExitInfo(t) {
		t.Skip("needs Linux 6.15")
	}
	w := startWorker(t, "exit-on-usr1", "6")
	w.expect(t, "ready")
	second, err := OpenPID(w.PID())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := w.Signal(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	waitDone(t, w.Process)
	waitDone(t, second)
	// One of the two handles reaps; the other learns the exit from its pidfd, or was faster.
	for _, got := range []identity.Exit{w.Exit(), second.Exit()} {
		if got.Code != 6 || got.Signal != 0 || got.Source == identity.ExitUnknown {
			t.Errorf("Exit() = %+v, want code 6", got)
		}
	}
}

// Without ptrace access field 52 of stat reads 0, which is not a clean exit.
func TestExitWithoutAccessIsUnknown(t *testing.T) {
	needRoot(t)
	for _, parent := range []string{"hold", "reap"} {
		t.Run(parent, func(t *testing.T) {
			const token = "not mine"
			_, id := startAdopted(t, parent, token, "exit-on-usr1", "6")
			p, err := Open(id, token)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			text, err := json.Marshal(id)
			if err != nil {
				t.Fatal(err)
			}
			watcher := startWorker(t, "nobody-exit", string(text))
			watcher.expect(t, "ready")
			if err := p.Signal(unix.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			got := watcher.expect(t, "exit")
			const unknown = "exited with an unknown code" // and no source
			if parent == "hold" && got != unknown || got != unknown && got != "exited with code 6 pidfd" {
				t.Errorf("it %q, want unknown, or the true one once it is reaped", got)
			}
		})
	}
}

func TestExitOfKernelWithoutExitInfo(t *testing.T) {
	withhold(t, &kernel.Withheld.ExitInfo)
	const token = "adopted"
	_, id := startAdopted(t, "reap", token, "exit-on-usr1", "6")
	p, err := Open(id, token)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Signal(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	waitDone(t, p)
	// If the parent was faster, the exit is unknown and must not be guessed.
	if got := p.Exit(); got != (identity.Exit{}) && got != (identity.Exit{Code: 6, Source: identity.ExitStat}) {
		t.Errorf("Exit() = %+v, want unknown or code 6 by stat", got)
	}
}

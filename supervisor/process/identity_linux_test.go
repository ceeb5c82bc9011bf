package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

func hasPidfs(t testing.TB) bool {
	t.Helper()
	fd, err := openPidfd(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	_, ok, err := pidfdInode(fd)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// eachProof runs a test with the pidfd's inode as proof, and as on a kernel without it.
func eachProof(t *testing.T, test func(t *testing.T, proof identity.Proof)) {
	t.Run(string(identity.ProofPidfdInode), func(t *testing.T) {
		if !hasPidfs(t) {
			t.Skip("needs Linux 6.9")
		}
		test(t, identity.ProofPidfdInode)
	})
	t.Run(string(identity.ProofStartTimeToken), func(t *testing.T) {
		withhold(t, &kernel.Withheld.Pidfs)
		test(t, identity.ProofStartTimeToken)
	})
}

func TestOpenProvesIdentity(t *testing.T) {
	eachProof(t, func(t *testing.T, proof identity.Proof) {
		w := startWorker(t, "sleep")
		w.expect(t, "ready")
		id := w.Identity()
		if id.Proof != proof || (id.Inode != 0) != (proof == identity.ProofPidfdInode) || id.StartTicks == 0 {
			t.Fatalf("Start took this evidence: %+v", id)
		}
		p, err := Open(id, w.family.Token)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if p.Identity() != id {
			t.Errorf("Open: identity %+v, want %+v", p.Identity(), id)
		}
		seen := watchPID(t, w.PID())
		if seen.Identity() != id {
			t.Errorf("OpenPID: identity %+v, want %+v", seen.Identity(), id)
		}
		if err := seen.Verify(w.family.Token); err != nil {
			t.Errorf("Verify: %v", err)
		}
		if err := seen.Verify("another"); !errors.Is(err, ErrGone) {
			t.Errorf("Verify of another token: %v, want ErrGone", err)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	type verdicts map[identity.Proof]error
	tests := []struct {
		name   string
		change func(id *identity.Process)
		token  string
		want   verdicts // nil if it must open
	}{
		{
			"other boot", func(id *identity.Process) { id.BootID = "4f7b9f4e-7f2c-4a55-9d6e-0c1d2e3f4a5b" }, "",
			verdicts{identity.ProofPidfdInode: ErrGone, identity.ProofStartTimeToken: ErrGone},
		},
		{
			"no boot", func(id *identity.Process) { id.BootID = "" }, "",
			verdicts{identity.ProofPidfdInode: ErrUnverifiable, identity.ProofStartTimeToken: ErrUnverifiable},
		},
		{
			"other namespace", func(id *identity.Process) { id.PIDNamespace++ }, "",
			verdicts{identity.ProofPidfdInode: ErrUnverifiable, identity.ProofStartTimeToken: ErrUnverifiable},
		},
		{
			"no namespace", func(id *identity.Process) { id.PIDNamespace = 0 }, "",
			verdicts{identity.ProofPidfdInode: ErrUnverifiable, identity.ProofStartTimeToken: ErrUnverifiable},
		},
		{
			"no pid", func(id *identity.Process) { id.PID = 0 }, "",
			verdicts{identity.ProofPidfdInode: ErrUnverifiable, identity.ProofStartTimeToken: ErrUnverifiable},
		},
		{
			"other inode", func(id *identity.Process) { id.Inode++ }, "",
			verdicts{identity.ProofPidfdInode: ErrGone, identity.ProofStartTimeToken: nil},
		},
		{
			"other start", func(id *identity.Process) { id.StartTicks++ }, "",
			verdicts{identity.ProofPidfdInode: nil, identity.ProofStartTimeToken: ErrGone},
		},
		{
			"no start", func(id *identity.Process) { id.StartTicks = 0 }, "",
			verdicts{identity.ProofPidfdInode: nil, identity.ProofStartTimeToken: ErrUnverifiable},
		},
		{
			"other token", func(*identity.Process) {}, "another",
			verdicts{identity.ProofPidfdInode: nil, identity.ProofStartTimeToken: ErrGone},
		},
		{
			"unknown proof", func(id *identity.Process) { id.Proof = "hearsay" }, "",
			verdicts{identity.ProofPidfdInode: ErrUnverifiable, identity.ProofStartTimeToken: ErrUnverifiable},
		},
	}
	eachProof(t, func(t *testing.T, proof identity.Proof) {
		w := startWorker(t, "sleep")
		w.expect(t, "ready")
		for _, tt := range tests {
			id, token := w.Identity(), w.family.Token
			tt.change(&id)
			if tt.token != "" {
				token = tt.token
			}
			p, err := Open(id, token)
			if !errors.Is(err, tt.want[proof]) {
				t.Errorf("%s: Open: %v, want %v", tt.name, err, tt.want[proof])
			}
			if err == nil {
				p.Close()
			} else if !strings.HasPrefix(err.Error(), fmt.Sprintf("open process %d: ", id.PID)) {
				t.Errorf("%s: Open: %q does not say of whom", tt.name, err)
			}
		}
	})
}

func TestOpenWhatBecameUnclear(t *testing.T) {
	tests := []struct {
		behaviour string
		args      []string
		byToken   error // if the start time and the token are the proof
	}{
		{"re-exec", nil, nil},
		{"dead-leader", nil, nil},
		{"overwrite", nil, ErrUnverifiable},
		{"clear", []string{"sleep"}, ErrUnverifiable},
	}
	for _, tt := range tests {
		t.Run(tt.behaviour, func(t *testing.T) {
			eachProof(t, func(t *testing.T, proof identity.Proof) {
				w := startWorker(t, tt.behaviour, tt.args...)
				w.expect(t, "ready")
				p, err := Open(w.Identity(), w.family.Token)
				switch {
				case proof == identity.ProofPidfdInode && err != nil:
					t.Errorf("Open: %v, want it proven", err)
				case proof == identity.ProofStartTimeToken && !errors.Is(err, tt.byToken):
					t.Errorf("Open: %v, want %v", err, tt.byToken)
				}
				if err == nil {
					select {
					case <-p.Done():
						t.Error("Done is closed while threads live")
					default:
					}
					p.Close()
				}
			})
		})
	}
}

func TestOpenDead(t *testing.T) {
	eachProof(t, func(t *testing.T, _ identity.Proof) {
		w := startWorker(t, "exit", "4")
		waitDone(t, w.Process)
		w.Exit() // it is reaped by now
		if _, err := Open(w.Identity(), w.family.Token); !errors.Is(err, ErrGone) {
			t.Errorf("Open: %v, want ErrGone", err)
		}
		if _, err := OpenPID(w.PID()); !errors.Is(err, ErrGone) {
			t.Errorf("OpenPID: %v, want ErrGone", err)
		}
	})
}

// After an upgrade in place the workers are still children of this process, and some may have died meanwhile.
func TestOpenOwnZombie(t *testing.T) {
	eachProof(t, func(t *testing.T, _ identity.Proof) {
		w := startWorker(t, "exit-on-usr1", "5")
		w.expect(t, "ready")
		id := w.Identity()
		if err := w.Process.Close(); err != nil { // the handle is lost, as by exec
			t.Fatal(err)
		}
		if err := unix.Kill(id.PID, unix.SIGUSR1); err != nil { // a child that no handle reaps
			t.Fatal(err)
		}
		waitState(t, id.PID, unix.WEXITED)
		p, err := Open(id, w.family.Token)
		if err != nil {
			t.Fatal(err)
		}
		w.Process, w.family.Main = p, p
		select {
		case <-p.Done():
		default:
			t.Error("the dead is opened as one that lives")
		}
		if got, want := p.Exit(), (identity.Exit{Code: 5, Source: identity.ExitWait}); got != want {
			t.Errorf("Exit() = %+v, want %+v", got, want)
		}
	})
}

func TestOpenThreadIsGone(t *testing.T) {
	tids, done := make(chan int), make(chan struct{})
	defer close(done)
	for range 2 { // one of them may be the first thread
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			tids <- unix.Gettid()
			<-done
		}()
	}
	tid, other := <-tids, <-tids
	if tid == os.Getpid() {
		tid = other
	}
	id := identity.Process{PID: tid, PIDNamespace: PIDNamespace(), Inode: 1, Proof: identity.ProofPidfdInode}
	id.BootID, _ = BootID()
	if _, err := Open(id, "token"); !errors.Is(err, ErrGone) {
		t.Errorf("Open of a thread's number: %v, want ErrGone", err)
	}
}

// The PID is really reused: the test sets the next PID of the kernel, in a PID namespace of its own. Elsewhere it would
// rewind the PIDs of all processes.
func TestReusedPIDIsNeverSignalled(t *testing.T) {
	needRoot(t)
	if os.Getpid() != 1 {
		asFirstProcess(t)
		return
	}
	eachProof(t, func(t *testing.T, _ identity.Proof) {
		old, decoy := reusePID(t)
		decoy.expect(t, "ready")
		if err := old.Signal(unix.SIGUSR1); !errors.Is(err, ErrGone) {
			t.Errorf("Signal by the old handle: %v, want ErrGone", err)
		}
		if err := old.SignalGroup(unix.SIGUSR1); !errors.Is(err, ErrGone) {
			t.Errorf("SignalGroup by the old handle: %v, want ErrGone", err)
		}
		withhold(t, &kernel.Withheld.GroupSignal)
		if err := old.SignalGroup(unix.SIGUSR1); !errors.Is(err, ErrGone) {
			t.Errorf("SignalGroup by number by the old handle: %v, want ErrGone", err)
		}
		if p, err := Open(old.Identity(), old.family.Token); !errors.Is(err, ErrGone) {
			t.Errorf("Open: %v, want ErrGone", err)
			if err == nil {
				p.Close()
			}
		}
		ctx, cancel := testDeadline()
		defer cancel()
		family := old.family // with the leader's PID and an old handle
		if left, err := family.Kill(ctx); err != nil || len(left) > 0 {
			t.Errorf("Kill of the old family: %v, %v", left, err)
		}
		if members, err := family.Members(ctx); err != nil || len(members) > 0 {
			t.Errorf("Members of the old family: %v, %v", members, err)
		}
		// Send one signal that the decoy must receive; it must receive no other.
		if err := decoy.Signal(unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		decoy.expect(t, "usr1")
		if err := decoy.Signal(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitDone(t, decoy.Process)
		if rest, err := decoy.output.ReadString('\n'); err == nil {
			t.Errorf("the stranger got another signal: %q", rest)
		}
	})
}

// asFirstProcess runs the test again, in a process that is the first one of a PID namespace.
func asFirstProcess(t *testing.T) {
	t.Helper()
	self, err := os.Executable() // /proc/self/exe would be that of unshare
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/unshare", "--fork", "--kill-child", "--pid", "--mount-proc",
		self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+" ") {
		t.Errorf("%v\n%s", err, out)
	}
}

// reusePID returns a worker that has ended, and another one that was given the same PID.
func reusePID(t *testing.T) (old, decoy *worker) {
	t.Helper()
	for range 50 { // a new thread of this process may get the PID first, and keep it
		old = startWorker(t, "exit", "0")
		waitDone(t, old.Process)
		old.Exit() // it is reaped: the PID is free
		previous := fmt.Appendf(nil, "%d", old.PID()-1)
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", previous, 0); err != nil {
			t.Fatal(err)
		}
		if decoy = startWorker(t, "count-usr1"); decoy.PID() == old.PID() {
			return old, decoy
		}
	}
	t.Fatal("the PID was not given again")
	return nil, nil
}

func TestProcOfAnotherNamespace(t *testing.T) {
	needRoot(t)
	// The child runs in a new PID namespace with the outer /proc, whose PIDs are those of the outer namespace.
	cmd := exec.Command(program, childArgs("namespace")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	out, err := cmd.Output()
	if err != nil {
		t.Skip(err)
	}
	if !strings.HasPrefix(string(out), "proc false ") {
		t.Errorf("it says %q, want /proc refused", out)
	}
}

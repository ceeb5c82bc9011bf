package process

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/supervisor/process/internal/strays"
)

// patience bounds every wait of a test for a process. A wait normally takes far less.
const patience = time.Minute

// program is this test binary, by a path that also works for a user that may not read its folder.
const program = "/proc/self/exe"

func testDeadline() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

// testMaster returns the master ID of all children of one test run.
func testMaster() string {
	if id := os.Getenv(EnvMasterID); id != "" {
		return id
	}
	return testMasterID()
}

var testMasterID = sync.OnceValue(rand.Text)

func TestMain(m *testing.M) {
	RunStartHelper()
	if isChild() {
		childMain()
		return
	}
	os.Exit(strays.Run(m, os.Stderr))
}

// worker is a process under test with the processes that it may leave behind.
type worker struct {
	*Process
	family Family
	output *bufio.Reader
	pipe   *os.File
	stash  []string
}

// startWorker starts a child with the given behaviour, a token and a lease. At the end of the test the child and
// its descendants are killed.
func startWorker(t testing.TB, behaviour string, args ...string) *worker {
	t.Helper()
	w := prepareWorker(t)
	return w.start(t, Spec{Args: childArgs(behaviour, args...)})
}

func prepareWorker(t testing.TB) *worker {
	return &worker{family: Family{Token: rand.Text(), LeasePath: filepath.Join(t.TempDir(), "worker.lease")}}
}

func (w *worker) start(t testing.TB, spec Spec) *worker {
	t.Helper()
	lease, err := CreateLease(w.family.LeasePath)
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	t.Cleanup(func() { read.Close() })
	if spec.Path == "" {
		spec.Path = program
	}
	spec.Env = append(spec.Env,
		EnvMasterID+"="+testMaster(), EnvStateDir+"=1:2", EnvWorkerID+"=worker-0",
		EnvWorkerToken+"="+w.family.Token, EnvWorkerPort+"=40001", "PATH="+os.Getenv("PATH"),
		"GORACE=atexit_sleep_ms=0") // else each exit takes a second under -race
	spec.Output, spec.Lease = write, lease
	if w.Process, err = Start(spec); err != nil {
		t.Fatal(err)
	}
	w.family.Lease, w.family.Leader, w.family.Main = lease.ID(), w.PID(), w.Process
	w.family.Session, w.family.UID, w.family.StartTicks = w.PID(), uint32(os.Geteuid()), w.Identity().StartTicks
	if spec.Rights.User != "" {
		w.family.UID = spec.Rights.Account.UID
	}
	w.pipe, w.output = read, bufio.NewReader(read)
	t.Cleanup(func() {
		ctx, cancel := testDeadline()
		defer cancel()
		if left, err := w.family.Kill(ctx); err != nil {
			t.Errorf("kill the worker's family: %v, left: %v", err, left)
		}
		<-w.Done()
		w.Close()
	})
	return w
}

// expect reads the output up to a line that begins with word (or words) and returns the rest of that line. Lines
// before it are kept for the next call.
func (w *worker) expect(t testing.TB, word string) string {
	t.Helper()
	for i, line := range w.stash {
		if rest, found := cutWord(line, word); found {
			w.stash = append(w.stash[:i], w.stash[i+1:]...)
			return rest
		}
	}
	if err := w.pipe.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for {
		line, err := w.output.ReadString('\n')
		if err != nil {
			t.Fatalf("waiting for %q: %v; output so far: %q", word, err, append(w.stash, line))
		}
		line = strings.TrimSpace(line)
		if rest, found := cutWord(line, word); found {
			return rest
		}
		w.stash = append(w.stash, line)
	}
}

func cutWord(line, word string) (rest string, found bool) {
	if line == word {
		return "", true
	}
	return strings.CutPrefix(line, word+" ")
}

// expectPID is like expect for lines that contain a PID.
func (w *worker) expectPID(t testing.TB, word string) int {
	t.Helper()
	var pid int
	if _, err := fmt.Sscan(w.expect(t, word), &pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

// watchPID watches a process whose PID the worker has printed, until the end of the test. It leaves reaping, and
// so the exit, to the worker's own handle.
func watchPID(t testing.TB, pid int) *Process {
	t.Helper()
	p, err := openPID(pid, ignore)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func waitDone(t testing.TB, p *Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Fatalf("process %d is not dead", p.PID())
	}
}

// waitState waits until a child of this process is stopped or continued, without reaping it.
func waitState(t testing.TB, pid, option int) {
	t.Helper()
	if err := unix.Waitid(unix.P_PID, pid, nil, option|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// withhold makes the kernel look older during one test.
func withhold(t testing.TB, features ...interface{ Store(bool) }) {
	for _, f := range features {
		f.Store(true)
		t.Cleanup(func() { f.Store(false) })
	}
}

// awaitTrue polls until the condition holds.
func awaitTrue(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("never came true: %s", what)
			return
		}
	}
}

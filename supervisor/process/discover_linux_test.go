package process

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/systemd"
)

// startNamed starts a child whose name is unique on this machine, and returns both.
func startNamed(t *testing.T, behaviour string, args ...string) (*worker, string) {
	t.Helper()
	name := "s-" + strings.ToLower(rand.Text()[:10])
	return startAs(t, name, behaviour, args...), name
}

// startAs starts a child with a name. The kernel takes it from the path that is executed.
func startAs(t *testing.T, name, behaviour string, args ...string) *worker {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return prepareWorker(t).start(t, Spec{Path: path, Args: childArgs(behaviour, args...)})
}

// discoverOne searches for one process, which is closed at the end of the test.
func discoverOne(t *testing.T, own Own, q Query) Discovery {
	t.Helper()
	d := Discover(t.Context(), own, []Query{q})[0]
	if d.Process != nil {
		t.Cleanup(func() { _ = d.Process.Close() })
	}
	return d
}

// wantFound checks that the pattern finds the process.
func wantFound(t *testing.T, p Pattern, want *worker) *Process {
	t.Helper()
	d := discoverOne(t, Own{}, Query{Pattern: p})
	if d.Err != nil {
		t.Fatalf("%s: %v, want process %d", p, d.Err, want.PID())
	}
	if d.Process.Identity() != want.Identity() || d.Name == "" {
		t.Fatalf("%s finds %q, %+v, want %+v", p, d.Name, d.Process.Identity(), want.Identity())
	}
	if age := time.Since(d.Started); age < -clockSlack || age > patience {
		t.Errorf("%s: started %s ago", p, age)
	}
	if err := d.Process.Matches(p); err != nil {
		t.Errorf("%s: the process that was found: %v", p, err)
	}
	return d.Process
}

// wantNothing checks that the pattern finds nothing, and says why.
func wantNothing(t *testing.T, own Own, p Pattern, is error, words ...string) {
	t.Helper()
	wantReason(t, discoverOne(t, own, Query{Pattern: p}).Err, is, words...)
}

func wantReason(t *testing.T, err, is error, words ...string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Fatalf("%v, want %v", err, is)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%v, want it to say %q", err, word)
		}
	}
}

// writePIDFile writes a PID file that is as old as it says.
func writePIDFile(t *testing.T, content string, age time.Duration) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.pid")
	err := os.WriteFile(path, []byte(content), 0o644)
	if err == nil && age != 0 {
		at := time.Now().Add(-age)
		err = os.Chtimes(path, at, at)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDiscoverByName(t *testing.T) {
	w, name := startNamed(t, "sleep", "one", "two")
	w.expect(t, "ready")
	wantFound(t, Pattern{Name: name}, w)
	wantFound(t, Pattern{Name: name, Args: []string{"child", "two"}}, w)
	wantNothing(t, Own{}, Pattern{Name: name, Args: []string{"two", "one"}}, ErrGone, "no process "+name+" two one")
	wantNothing(t, Own{}, Pattern{Name: name[:len(name)-1]}, ErrGone)
}

func TestDiscoverByALongName(t *testing.T) {
	name := "stranger-with-a-long-name-" + strings.ToLower(rand.Text()[:6])
	w := startAs(t, name, "sleep")
	w.expect(t, "ready")
	wantFound(t, Pattern{Name: name}, w)
	wantNothing(t, Own{}, Pattern{Name: name[:maxComm] + "-other"}, ErrGone)
}

// A script that is executed itself has its own name, one that an interpreter is given has that of the interpreter.
func TestDiscoverAScript(t *testing.T) {
	name := "s-" + strings.ToLower(rand.Text()[:8]) + ".sh"
	path := filepath.Join(t.TempDir(), name)
	script := "#!/bin/sh\necho ready\nread forever < " + t.TempDir() + "/fifo\n"
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(spec Spec) *worker {
		w := prepareWorker(t).start(t, spec)
		w.expect(t, "ready")
		return w
	}
	fifo := strings.TrimSuffix(strings.Fields(script)[len(strings.Fields(script))-1], "\n")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	direct := run(Spec{Path: path})
	wantFound(t, Pattern{Name: name}, direct)
	by := run(Spec{Path: "/bin/sh", Args: []string{path, "by-sh"}})
	wantFound(t, Pattern{Name: "sh", Args: []string{path, "by-sh"}}, by)
	wantFound(t, Pattern{Name: name}, direct) // the other is not named like that
}

func TestDiscoverMakesNoChoice(t *testing.T) {
	a, name := startNamed(t, "sleep")
	b := startAs(t, name, "sleep")
	a.expect(t, "ready")
	b.expect(t, "ready")
	wantNothing(t, Own{}, Pattern{Name: name}, ErrUnverifiable, "2 processes match",
		fmt.Sprint(a.PID()), fmt.Sprint(b.PID()))
	// The one that is known already is no choice.
	for _, known := range []*worker{a, b} {
		d := discoverOne(t, Own{}, Query{Pattern: Pattern{Name: name}, Last: known.Identity()})
		if d.Err != nil || d.Process.Identity() != known.Identity() {
			t.Errorf("the known process %d: %+v", known.PID(), d)
		}
	}
	other := a.Identity()
	other.StartTicks--
	d := discoverOne(t, Own{}, Query{Pattern: Pattern{Name: name}, Last: other})
	wantReason(t, d.Err, ErrUnverifiable, "2 processes match")
}

func TestDiscoverDoesNotCountDescendants(t *testing.T) {
	unique := rand.Text()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pattern := Pattern{Name: filepath.Base(self), Args: []string{"sleep", unique}}
	parent, _ := startNamed(t, "spawn", "sleep", unique)
	child := parent.expectPID(t, "ready")
	if other := parent.expectPID(t, "ready"); child == parent.PID() {
		child = other
	}
	wantFound(t, pattern, parent)
	if err := parent.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitDone(t, parent.Process)
	if d := discoverOne(t, Own{}, Query{Pattern: pattern}); d.Err != nil || d.Process.PID() != child {
		t.Errorf("after the end of its parent: %+v, want process %d", d, child)
	}
}

func TestDiscoverNeverFindsOurs(t *testing.T) {
	w, name := startNamed(t, "spawn", "clear", "sleep")
	w.expect(t, "ready")
	stray := w.expectPID(t, "ready")
	if stray == w.PID() {
		stray = w.expectPID(t, "ready")
	}
	byName := Pattern{Name: name}
	byFile := Pattern{PIDFile: writePIDFile(t, fmt.Sprint(w.PID()), 0)}
	for what, own := range map[string]Own{
		"by its environment": {MasterID: testMaster(), StateDir: "1:2"},
		"as an instance":     {Leaders: []int{w.PID()}},
	} {
		t.Run(what, func(t *testing.T) {
			wantNothing(t, own, byName, ErrUnverifiable, "a process of this master", fmt.Sprint(w.PID()))
			wantNothing(t, own, byFile, ErrUnverifiable, "a process of this master")
		})
	}
	// Another master's is not ours, and neither is that of a copied state directory.
	for _, own := range []Own{{MasterID: "another", StateDir: "1:2"}, {MasterID: testMaster(), StateDir: "1:3"}} {
		if d := discoverOne(t, own, Query{Pattern: byName}); d.Err != nil {
			t.Errorf("%+v: %v", own, d.Err)
		}
	}
	// Its child shows no environment, and is its descendant.
	strayFile := Pattern{PIDFile: writePIDFile(t, fmt.Sprint(stray), 0)}
	wantNothing(t, Own{Leaders: []int{w.PID()}}, strayFile, ErrUnverifiable, "a process of this master")
	if err := w.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitDone(t, w.Process)
	// An orphan is in the session of its instance.
	wantNothing(t, Own{Leaders: []int{w.PID()}}, strayFile, ErrUnverifiable, "a process of this master")
	wantNothing(t, Own{}, Pattern{PIDFile: writePIDFile(t, fmt.Sprint(os.Getpid()), 0)}, ErrUnverifiable,
		"a process of this master")
}

func TestDiscoverByPIDFile(t *testing.T) {
	w := startWorker(t, "sleep")
	w.expect(t, "ready")
	pid := fmt.Sprint(w.PID())
	wantFound(t, Pattern{PIDFile: writePIDFile(t, pid+"\nmore\n", 0)}, w)
	dir := t.TempDir()
	good := writePIDFile(t, pid, 0)
	path := func(name string, create func(path string) error) string {
		path := filepath.Join(dir, name)
		if err := create(path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := path("fifo", func(path string) error { return unix.Mkfifo(path, 0o600) })
	link := path("link", func(path string) error { return os.Symlink(good, path) })
	folder := path("folder", func(path string) error { return os.Mkdir(path, 0o700) })
	writable := path("writable", func(path string) error {
		return errors.Join(os.WriteFile(path, []byte(pid), 0o600), os.Chmod(path, 0o666))
	})
	huge := path("huge", func(path string) error {
		return os.WriteFile(path, bytes.Repeat([]byte("1"), 1<<20), 0o600)
	})
	for _, tt := range []struct {
		path string
		is   error
		word string
	}{
		{filepath.Join(dir, "none"), ErrGone, "there is no "},
		{writePIDFile(t, "", 0), ErrUnverifiable, "it is empty"},
		{writePIDFile(t, "redis", 0), ErrUnverifiable, "not a PID"},
		{huge, ErrUnverifiable, "not a PID"},
		{writePIDFile(t, "2147483647", 0), ErrGone, "names process 2147483647, which does not exist"},
		{fifo, ErrUnverifiable, "a FIFO"},
		{link, ErrUnverifiable, "symbolic link"},
		{folder, ErrUnverifiable, "a directory"},
		{writable, ErrUnverifiable, "any user can write"},
		// Older than the process: another process had the PID.
		{writePIDFile(t, pid, time.Hour), ErrGone, "before process " + pid + " started"},
	} {
		wantNothing(t, Own{}, Pattern{PIDFile: tt.path}, tt.is, tt.word)
	}
}

// The file of a user may name only a process of that user.
func TestDiscoverByThePIDFileOfAnotherUser(t *testing.T) {
	needRoot(t)
	w := startWorker(t, "sleep")
	w.expect(t, "ready")
	file := writePIDFile(t, fmt.Sprint(w.PID()), 0)
	if err := os.Chown(file, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	wantNothing(t, Own{}, Pattern{PIDFile: file}, ErrUnverifiable,
		fmt.Sprintf("belongs to user %d", nobody), "to user 0")
	dropped := startWorker(t, "drop-uid")
	dropped.expect(t, "ready")
	file = writePIDFile(t, fmt.Sprint(dropped.PID()), 0)
	if err := os.Chown(file, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	wantFound(t, Pattern{PIDFile: file}, dropped)
}

// The PID of a dead process, which its file still names, is given to another one.
func TestDiscoverAReusedPID(t *testing.T) {
	if os.Getpid() != 1 {
		needRoot(t)
		asFirstProcess(t)
		return
	}
	old, decoy := reusePID(t)
	file := writePIDFile(t, fmt.Sprint(old.PID()), 10*time.Second)
	wantNothing(t, Own{}, Pattern{PIDFile: file}, ErrGone, "before process", "that of another process")
	if err := old.Matches(Pattern{PIDFile: file}); !errors.Is(err, ErrGone) {
		t.Errorf("the handle of the dead process: %v", err)
	}
	wantFound(t, Pattern{PIDFile: writePIDFile(t, fmt.Sprint(decoy.PID()), 0)}, decoy)
	last := decoy.Identity()
	last.StartTicks--
	if d := discoverOne(t, Own{}, Query{Pattern: Pattern{PIDFile: file}, Last: last}); !errors.Is(d.Err, ErrGone) {
		t.Errorf("known before as another process: %+v", d)
	}
}

func TestDiscoverNoDeadProcess(t *testing.T) {
	parent, name := startNamed(t, "sleep")
	parent.expect(t, "ready")
	zombie := startZombie(t)
	wantNothing(t, Own{}, Pattern{PIDFile: writePIDFile(t, fmt.Sprint(zombie.pid), 0)}, ErrGone, "does not exist")
	wantNothing(t, Own{}, Pattern{Name: zombie.name}, ErrGone, "no process "+zombie.name)
	namesake := startAs(t, zombie.name, "sleep")
	namesake.expect(t, "ready")
	wantFound(t, Pattern{Name: zombie.name}, namesake) // one process, not two
	p := wantFound(t, Pattern{Name: name}, parent)
	if err := parent.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitDone(t, p)
	wantNothing(t, Own{}, Pattern{Name: name}, ErrGone)
	if err := p.Matches(Pattern{Name: name}); !errors.Is(err, ErrGone) {
		t.Errorf("after its end: %v", err)
	}
}

// zombie is a dead child that nobody reaps before the end of the test.
type zombie struct {
	pid  int
	name string
}

func startZombie(t *testing.T) zombie {
	t.Helper()
	name := "z-" + strings.ToLower(rand.Text()[:10])
	path := filepath.Join(t.TempDir(), name)
	if err := os.Symlink("/bin/true", path); err != nil {
		t.Fatal(err)
	}
	p, err := os.StartProcess(path, []string{name}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = p.Wait() })
	if err := unix.Waitid(unix.P_PID, p.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	return zombie{p.Pid, name}
}

func TestDiscoverASuspendedProcess(t *testing.T) {
	w, name := startNamed(t, "sleep")
	w.expect(t, "ready")
	if err := w.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waitState(t, w.PID(), unix.WSTOPPED)
	if p := wantFound(t, Pattern{Name: name}, w); !p.Stopped() {
		t.Error("it does not seem stopped")
	}
}

func TestDiscoverAProcessWhoseFirstThreadHasEnded(t *testing.T) {
	w, name := startNamed(t, "dead-leader")
	w.expect(t, "ready")
	wantFound(t, Pattern{Name: name, Args: []string{"dead-leader"}}, w)
}

// The process executes another program: its PID and its handle are the same, and it is not the one that was meant.
func TestMatchesAfterExec(t *testing.T) {
	name := "s-" + strings.ToLower(rand.Text()[:10])
	path, gate := filepath.Join(t.TempDir(), name), filepath.Join(t.TempDir(), "gate")
	script := "#!/bin/sh\necho ready\nread go < " + gate + "\nexec sleep 100\n"
	if err := errors.Join(os.WriteFile(path, []byte(script), 0o700), unix.Mkfifo(gate, 0o600)); err != nil {
		t.Fatal(err)
	}
	w := prepareWorker(t).start(t, Spec{Path: path})
	w.expect(t, "ready")
	p := wantFound(t, Pattern{Name: name}, w)
	if err := os.WriteFile(gate, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	var err error
	awaitTrue(t, "the process does not match", func() bool {
		err = p.Matches(Pattern{Name: name})
		return err != nil
	})
	wantReason(t, err, ErrGone, "executes another program", "sleep")
	if !p.alive() {
		t.Error("it is dead")
	}
	wantNothing(t, Own{}, Pattern{Name: name}, ErrGone)
}

func TestMatchesFollowsThePIDFile(t *testing.T) {
	a, b := startWorker(t, "sleep"), startWorker(t, "sleep")
	a.expect(t, "ready")
	b.expect(t, "ready")
	file := writePIDFile(t, fmt.Sprint(a.PID()), 0)
	p := wantFound(t, Pattern{PIDFile: file}, a)
	if err := os.WriteFile(file, []byte(fmt.Sprint(b.PID())), 0o644); err != nil {
		t.Fatal(err)
	}
	wantReason(t, p.Matches(Pattern{PIDFile: file}), ErrGone, fmt.Sprintf("names process %d now", b.PID()))
	wantFound(t, Pattern{PIDFile: file}, b)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	wantReason(t, p.Matches(Pattern{PIDFile: file}), ErrGone, "there is no")
}

func TestDiscoverByPort(t *testing.T) {
	eachSource(t, func(t *testing.T) {
		w := startWorker(t, "listen", "127.0.0.1:0")
		port := w.expectPID(t, "port")
		p := wantFound(t, Pattern{Port: port}, w)
		if err := p.Matches(Pattern{Port: port - 1}); err == nil {
			t.Error("it matches another port")
		}
		if err := w.Signal(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitDone(t, w.Process)
		wantNothing(t, Own{}, Pattern{Port: port}, ErrGone, fmt.Sprintf("nothing listens on port %d", port))
	})
}

// The child has the listener of a server that forks; one that both have is its parent's.
func TestDiscoverThePortOfAServerThatForks(t *testing.T) {
	w := startWorker(t, "prefork", "127.0.0.1:0")
	port := w.expectPID(t, "port")
	d := discoverOne(t, Own{}, Query{Pattern: Pattern{Port: port}})
	if d.Err != nil || parentNow(d.Process.PID()) != w.PID() {
		t.Errorf("%+v, want the child of %d", d, w.PID())
	}
	wantNothing(t, Own{Leaders: []int{w.PID()}}, Pattern{Port: port}, ErrUnverifiable, "a process of this master")
}

func TestDiscoverAPortOfTwo(t *testing.T) {
	a := startWorker(t, "accept", "127.0.0.1:0")
	port := a.expectPID(t, "port")
	b := startWorker(t, "accept", net.JoinHostPort("127.0.0.1", fmt.Sprint(port)))
	b.expect(t, "port")
	wantNothing(t, Own{}, Pattern{Port: port}, ErrUnverifiable, "2 processes match", fmt.Sprint(a.PID()))
}

// A user sees that there is a listener, and not whose process it is.
func TestDiscoverThePortOfAnotherUser(t *testing.T) {
	needRoot(t)
	w := startWorker(t, "listen", "127.0.0.1:0")
	port := w.expectPID(t, "port")
	watcher := startWorker(t, "nobody-discover", fmt.Sprint(port))
	const hidden = "has a listener of user 0, whose process cannot be seen"
	if got := watcher.expect(t, "discovery"); !strings.Contains(got, hidden) {
		t.Errorf("it says %q", got)
	}
	// Names and arguments are readable.
	named, name := startNamed(t, "sleep")
	named.expect(t, "ready")
	watcher = startWorker(t, "nobody-discover", name)
	if got, want := watcher.expect(t, "discovery"), fmt.Sprint("pid ", named.PID()); got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
}

// nobodyDiscover searches for a port or a name after it has dropped its privileges.
func nobodyDiscover(args []string) {
	dropUID()
	p := Pattern{Name: args[0]}
	if strings.Trim(args[0], "0123456789") == "" {
		p = Pattern{Port: number(args[0])}
	}
	d := Discover(context.Background(), Own{}, []Query{{Pattern: p}})[0]
	if d.Err != nil {
		fmt.Printf("discovery %v\n", d.Err)
		return
	}
	fmt.Printf("discovery pid %d\n", d.Process.PID())
}

// All searches share one list of processes, and the results are in the order of the queries.
func TestDiscoverSeveral(t *testing.T) {
	a, nameA := startNamed(t, "sleep")
	b, nameB := startNamed(t, "sleep")
	a.expect(t, "ready")
	b.expect(t, "ready")
	queries := []Query{
		{Pattern: Pattern{Name: nameB}},
		{Pattern: Pattern{Name: "no-" + nameA}},
		{Pattern: Pattern{Name: nameA}},
		{Pattern: Pattern{PIDFile: writePIDFile(t, fmt.Sprint(b.PID()), 0)}},
	}
	var got []int
	for _, d := range Discover(t.Context(), Own{}, queries) {
		if d.Err != nil {
			got = append(got, 0)
			continue
		}
		got = append(got, d.Process.PID())
		_ = d.Process.Close()
	}
	if want := []int{b.PID(), 0, a.PID(), b.PID()}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, d := range Discover(ended, Own{}, queries[:1]) {
		if !errors.Is(d.Err, context.Canceled) {
			t.Errorf("after the end of its context: %+v", d)
		}
	}
}

// A process whose memory is locked for a long time does not block the search.
func TestPatiently(t *testing.T) {
	const pid = 1 << 30 // no process
	release, ended := make(chan struct{}), make(chan struct{})
	text, read := patiently(pid, func() []byte { defer close(ended); <-release; return []byte("late") })
	if read {
		t.Errorf("it read %q", text)
	}
	if _, read := patiently(pid, func() []byte { t.Error("it is read again"); return nil }); read {
		t.Error("a process that stalls was read")
	}
	close(release)
	<-ended
	awaitTrue(t, "it does not stall", func() bool { return !isStalled(pid) })
	if text, read := patiently(pid, func() []byte { return []byte("x") }); !read || string(text) != "x" {
		t.Errorf("after that: %q, %t", text, read)
	}
}

// BenchmarkDiscover is the cost of the search for a process that does not exist, which a master pays at least every 8 s
// while one is absent.
// A systemd unit has the same main process before that is opened and afterwards.
func TestDiscoverByASystemdUnit(t *testing.T) {
	first, _ := startNamed(t, "sleep")
	second, _ := startNamed(t, "sleep")
	w, other := first.PID(), second.PID()
	p := Pattern{Systemd: "db.service"}
	answers := func(pids ...int) Own {
		return Own{MainPID: func(_ context.Context, unit string) (int, error) {
			if unit != "db.service" {
				t.Errorf("asked for %s", unit)
			}
			pid := pids[0]
			pids = pids[min(1, len(pids)-1):]
			if pid == 0 {
				return 0, errors.New("db.service is inactive (dead)")
			}
			return pid, nil
		}}
	}
	found := discoverOne(t, answers(w), Query{Pattern: p})
	if found.Err != nil || found.Process.Identity().PID != w {
		t.Fatalf("%+v", found)
	}
	if err := answers(w).CheckMain(t.Context(), "db.service", w); err != nil {
		t.Error(err)
	}
	changed := "the main process of db.service is process " + strconv.Itoa(other) + " now"
	wantReason(t, answers(other).CheckMain(t.Context(), "db.service", w), ErrGone, changed)
	wantNothing(t, answers(0), p, ErrGone, "is inactive")
	wantNothing(t, answers(w, other), p, ErrGone, changed)
	wantNothing(t, answers(w, 0), p, ErrGone, "is inactive")
	wantNothing(t, answers(os.Getpid()), p, ErrUnverifiable, "is a process of this master")
	wantNothing(t, Own{}, p, ErrUnverifiable, "systemd cannot be asked")
	wantNothing(t, Own{MainPID: func(context.Context, string) (int, error) {
		return 0, fmt.Errorf("%w: no such file", systemd.ErrNoAnswer)
	}}, p, ErrUnverifiable, "no such file")
	wantNothing(t, answers(math.MaxInt32), p, ErrGone, "has just ended")
}

func BenchmarkDiscover(b *testing.B) {
	query := []Query{{Pattern: Pattern{Name: "no-such-process", Args: []string{"x"}}}}
	for b.Loop() {
		Discover(b.Context(), Own{}, query)
	}
}

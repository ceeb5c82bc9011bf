package notify

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/leaks"
	"github.com/core-tools/hsu-master/internal/safefile"
)

const patience = time.Minute

// senderEnv makes this program send READY=1 to the socket that the variable names.
const senderEnv = "NOTIFY_TEST_SENDER"

func TestMain(m *testing.M) {
	if path := os.Getenv(senderEnv); path != "" {
		conn, err := net.Dial("unixgram", path)
		if err == nil {
			_, err = conn.Write([]byte("READY=1\nSTATUS=of another"))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		_, _ = os.Stdin.Read(make([]byte, 1)) // it lives until the test has seen the result
		os.Exit(0)
	}
	os.Exit(leaks.Run(m, os.Stderr))
}

// logged is a writer that may be used by several goroutines.
type logged struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func (l *logged) lines() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.Bytes(), []byte("\n"))
}

func listenAt(t *testing.T, path string) (*Socket, *logged) {
	t.Helper()
	log := new(logged)
	s, err := Listen(path, uint32(os.Geteuid()), slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, log
}

func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func send(t *testing.T, conn *net.UnixConn, text string) {
	t.Helper()
	if err := conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// await returns the state as soon as it passes.
func await(t *testing.T, s *Socket, what string, pass func(State) bool) State {
	t.Helper()
	deadline := time.After(patience)
	for {
		state, changed := s.State()
		if pass(state) {
			return state
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("the state is not %s: %+v", what, state)
		}
	}
}

func mine(pid int) bool { return pid == os.Getpid() }

func TestNotificationsOfTheWorkerCount(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.notify")
	s, _ := listenAt(t, path)
	if info, err := os.Lstat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket is %v, %v, want mode 0600", info.Mode(), err)
	}
	conn := dial(t, path)
	send(t, conn, "STATUS=too early to tell whose it is")
	changes := make(chan struct{}, 100)
	s.Attach(State{Ready: true}, mine, func() { changes <- struct{}{} })
	state := await(t, s, "heard", func(s State) bool { return s.Heard })
	if !state.Ready || !strings.HasPrefix(state.Status, "too early") {
		t.Errorf("state %+v, want it as told, with the status that was sent before", state)
	}
	<-changes
	send(t, conn, strings.Repeat("x", maxDatagram+1)) // as systemd, it ignores longer ones
	send(t, conn, "WATCHDOG=1\nSTATUS=up")
	if state = await(t, s, "up", func(s State) bool { return s.Status == "up" }); state.Watchdog.IsZero() {
		t.Errorf("state %+v, want the time of WATCHDOG=1", state)
	}
	<-changes
}

func TestNotificationsOfOthersAreIgnored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.notify")
	s, log := listenAt(t, path)
	var judged atomic.Int64
	s.Attach(State{}, func(pid int) bool {
		judged.Store(int64(pid))
		return mine(pid)
	}, func() {})
	for range 2 {
		other := exec.CommandContext(t.Context(), "/proc/self/exe")
		other.Env = append(os.Environ(), senderEnv+"="+path)
		stdin, err := other.StdinPipe()
		if err == nil {
			err = other.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		pid := int64(other.Process.Pid)
		for deadline := time.Now().Add(patience); judged.Load() != pid; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("its notification was not received")
			}
		}
		if err := errors.Join(stdin.Close(), other.Wait()); err != nil {
			t.Fatal(err)
		}
	}
	send(t, dial(t, path), "WATCHDOG=1")
	state := await(t, s, "heard", func(s State) bool { return s.Heard })
	if state.Ready || state.Status != "" {
		t.Errorf("state %+v: a notification of another process counts", state)
	}
	if n := log.lines(); n != 1 {
		t.Errorf("%d lines in the log, want 1", n)
	}
}

// A sender never waits for long, whatever it sends, and whether or not it is known whose it is.
func TestSenderIsNotBlocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.notify")
	s, _ := listenAt(t, path)
	conn := dial(t, path)
	for range 40 { // the queue has room for 11
		send(t, conn, strings.Repeat("STATUS=x\n", 100))
	}
	s.Attach(State{}, mine, func() {})
	began := time.Now()
	const flood = 3 * burst
	for range flood {
		send(t, conn, "WATCHDOG=1")
	}
	send(t, conn, "STATUS=end of the flood")
	await(t, s, "after the flood", func(s State) bool { return s.Status == "end of the flood" })
	if took := time.Since(began); took < period {
		t.Errorf("%d datagrams were read in %s: the work is not bounded", flood, took)
	}
}

// BARRIER=1 comes with a descriptor, which is closed when all notifications before it have been handled. Before it is
// known who belongs to the worker, none has been: a sender that ended could not be judged.
func TestDescriptorsAreClosed(t *testing.T) {
	for name, early := range map[string]bool{"early": true, "late": false} {
		path := filepath.Join(t.TempDir(), "w.notify")
		s, _ := listenAt(t, path)
		conn := dial(t, path)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if !early {
			s.Attach(State{}, mine, func() {})
		}
		send(t, conn, "STATUS=before")
		sendFile(t, conn, w)
		if err := errors.Join(w.Close(), r.SetReadDeadline(time.Now().Add(patience))); err != nil {
			t.Fatal(err)
		}
		if early {
			for range maxEarly { // more than fits into the queue: the barrier has been received
				send(t, conn, "STATUS=before")
			}
			isOpen := sync.OnceValue(func() bool { return !hungUp(t, r) }) // when the first ones are judged
			s.Attach(State{}, func(pid int) bool {
				if !isOpen() {
					t.Error("the descriptor was closed before its sender was judged")
				}
				return mine(pid)
			}, func() {})
		}
		if n, err := r.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: read %d bytes, %v, want the end of the pipe", name, n, err)
		}
		if state, _ := s.State(); state.Status != "before" {
			t.Errorf("%s: state %+v, want the status that was sent before the barrier", name, state)
		}
		_ = r.Close()
	}
}

// hungUp reports whether no process can write to a pipe any more.
func hungUp(t *testing.T, pipe *os.File) bool {
	t.Helper()
	raw, err := pipe.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if e := raw.Control(func(fd uintptr) {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, 0) //nolint:gosec // a descriptor fits
	}); e != nil || err != nil {
		t.Fatal(e, err)
	}
	return n > 0 // POLLHUP is always reported
}

// Closing a TCP socket can take as long as its sender has said with SO_LINGER, if its peer does not read.
func TestDescriptorsThatCannotBeClosedNow(t *testing.T) {
	for name, early := range map[string]bool{"early": true, "late": false} {
		path := filepath.Join(t.TempDir(), "w.notify")
		s, err := Listen(path, uint32(os.Geteuid()), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		conn, linger := dial(t, path), lingering(t)
		sole := make(chan struct{}) // closed when the socket has the only descriptor, and its close takes long
		if !early {
			s.Attach(State{}, func(pid int) bool {
				<-sole
				return mine(pid)
			}, func() {})
		}
		sendFile(t, conn, linger)
		if err := linger.Close(); err != nil {
			t.Fatal(err)
		}
		close(sole)
		send(t, conn, "STATUS=after")
		if !early {
			await(t, s, "the message after the descriptor", func(s State) bool { return s.Status == "after" })
		}
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_ = s.Close() // an error if it waited for the descriptor
		}()
		select {
		case <-closed:
		case <-time.After(patience):
			t.Errorf("%s: Close waits for a descriptor", name)
		}
	}
}

// lingering returns a TCP socket with unread data whose last close takes a day, or until the end of the test.
func lingering(t *testing.T) *os.File {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // with unread data, that resets the connection
		if err := peer.Close(); err != nil {
			t.Error(err)
		}
	})
	file, err := conn.File()
	if err == nil {
		err = conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) // then the buffers are full
	}
	for err == nil {
		_, err = conn.Write(make([]byte, 1<<20))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = conn.SetLinger(24 * 60 * 60)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// sendFile sends BARRIER=1. Package net sends no descriptors over a connected datagram socket.
func sendFile(t *testing.T, conn *net.UnixConn, file *os.File) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err == nil {
		var sent error
		err = raw.Write(func(fd uintptr) bool {
			sent = unix.Sendmsg(int(fd), []byte("BARRIER=1"), unix.UnixRights(int(file.Fd())), nil, 0)
			return !errors.Is(sent, unix.EAGAIN)
		})
		err = errors.Join(err, sent)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A worker is not silent because its socket was removed, for example with the runtime folder.
func TestMendedSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.notify")
	s, _ := listenAt(t, path)
	s.Attach(State{}, mine, func() {})
	connected := dial(t, path)
	send(t, connected, "READY=1\nWATCHDOG=1")
	before := await(t, s, "WATCHDOG=1", func(st State) bool { return !st.Watchdog.IsZero() })
	if lost, err := s.Mend(); lost || err != nil {
		t.Fatalf("Mend = %v, %v of a socket that is there", lost, err)
	}
	for i := range 3 {
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if lost, err := s.Mend(); !lost || err != nil {
			t.Fatalf("Mend = %v, %v of a socket that is gone", lost, err)
		}
		after, _ := s.State()
		if !after.Ready || !after.Watchdog.After(before.Watchdog) {
			t.Errorf("%+v after %+v, want a later WATCHDOG=1", after, before)
		}
		if i == 0 {
			send(t, connected, "STATUS=old")
			await(t, s, "what came over the former socket", func(st State) bool { return st.Status == "old" })
		}
		send(t, dial(t, path), fmt.Sprintf("STATUS=%d", i))
		await(t, s, "STATUS=", func(st State) bool { return st.Status == strconv.Itoa(i) })
		before = after
	}
}

func TestSocketOfAnEarlierMaster(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.notify")
	first, err := Listen(path, uint32(os.Geteuid()), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := first.File()
	if err == nil {
		err = first.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	send(t, dial(t, path), "READY=1") // while no master runs
	second, err := Restore(path, kept, slog.New(slog.DiscardHandler))
	if err == nil {
		err = kept.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	second.Attach(State{}, mine, func() {})
	await(t, second, "ready", func(s State) bool { return s.Ready })
	if err := errors.Join(second.Close(), second.Remove()); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("unixgram", path); !errors.Is(err, unix.ENOENT) {
		t.Errorf("dial: %v, want that there is no socket", err)
	}

	third, _ := listenAt(t, path) // without a Keeper, the path is taken again
	third.Attach(State{}, mine, func() {})
	fourth, _ := listenAt(t, path)
	fourth.Attach(State{}, mine, func() {})
	send(t, dial(t, path), "READY=1")
	await(t, fourth, "ready", func(s State) bool { return s.Ready })
	if state, _ := third.State(); state.Heard {
		t.Error("the replaced socket was reached")
	}
}

func TestPlace(t *testing.T) {
	me := uint32(os.Geteuid())
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	short := filepath.Join(t.TempDir(), "run")
	long := filepath.Join(t.TempDir(), strings.Repeat("x", safefile.MaxSocketPath))
	for _, dir := range []string{short, long} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if path, err := Place(short, "w-0", me); err != nil || path != filepath.Join(short, "w-0.notify") {
		t.Errorf("%q, %v, want it in the runtime folder", path, err)
	}
	path, err := Place(long, "w-0", me)
	if err != nil || filepath.Dir(filepath.Dir(path)) != temp {
		t.Errorf("%q, %v, want it in a folder for temporary files", path, err)
	}
	if again, err := Place(long, "w-0", me); again != path {
		t.Errorf("%q, %v, want it as before: %q", again, err, path)
	}
	another := long + "/../" + strings.Repeat("y", safefile.MaxSocketPath)
	if other, err := Place(another, "w-0", me); other == path || err != nil {
		t.Errorf("%q, %v, want another one for another runtime folder", other, err)
	}
	if err := errors.Join(os.Remove(filepath.Dir(path)), os.WriteFile(filepath.Dir(path), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if path, err := Place(long, "w-0", me); err == nil {
		t.Errorf("%q, want an error: a file is in the place of the folder", path)
	}
	t.Setenv("TMPDIR", filepath.Join(temp, strings.Repeat("z", safefile.MaxSocketPath)))
	if err := os.Mkdir(os.TempDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if path, err := Place(long, "w-0", me); err == nil || !strings.Contains(err.Error(), "choose a shorter") {
		t.Errorf("%q, %v, want that both are too long", path, err)
	}
}

// A worker of another user must reach its socket, and nothing else in the folder.
func TestPlaceForAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root starts workers of other users")
	}
	const nobody = 65534
	outer, err := os.MkdirTemp("", "hsu-notify-test") //nolint:usetesting // others cannot enter t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(outer) })
	dir := filepath.Join(outer, "run")
	if err := errors.Join(os.Chmod(outer, 0o755), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	path, err := Place(dir, "w-0", nobody)
	if err != nil || filepath.Dir(path) != dir {
		t.Fatalf("%q, %v, want it in the runtime folder", path, err)
	}
	s, err := Listen(path, nobody, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	worker, started := &exec.Cmd{}, make(chan struct{})
	s.Attach(State{}, func(sender int) bool {
		<-started
		return sender == worker.Process.Pid
	}, func() {})
	program := filepath.Join(outer, "sender")
	copied, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(program, copied, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	*worker = *exec.Command(program)
	worker.Env = []string{senderEnv + "=" + path}
	worker.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	stdin, err := worker.StdinPipe()
	if err == nil {
		err = worker.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	close(started)
	await(t, s, "ready", func(s State) bool { return s.Ready })
	if err := errors.Join(stdin.Close(), worker.Wait()); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("the folder has mode %v, %v, want 0711", info.Mode(), err)
	}
	if err := errors.Join(os.Chmod(dir, 0o700), Admit(path, nobody)); err != nil { // as systemd does at a start
		t.Error(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("the folder has mode %v, %v, want 0711 again", info.Mode(), err)
	}
	if err := os.Chmod(outer, 0o700); err != nil { // it is not the master's own folder
		t.Fatal(err)
	}
	if path, err := Place(dir, "w-0", nobody); err != nil || filepath.Dir(path) == dir {
		t.Errorf("%q, %v, want it elsewhere: the user cannot enter %s", path, err, outer)
	}
}

// The folder of a socket is made again with it.
func TestMendedSocketWithoutFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "w.notify")
	s, _ := listenAt(t, path)
	s.Attach(State{}, mine, func() {})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if lost, err := s.Mend(); !lost || err != nil {
		t.Fatalf("Mend = %v, %v of a socket without its folder", lost, err)
	}
	send(t, dial(t, path), "STATUS=back")
	await(t, s, "STATUS=back", func(st State) bool { return st.Status == "back" })
}

// A socket that cannot be made again is logged once, until it is made.
func TestSocketThatCannotBeMended(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, log := listenAt(t, filepath.Join(dir, "w.notify"))
	for _, want := range []string{"not made again", "made again", "not made again"} {
		before := len(log.String())
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		fails := want == "not made again"
		if fails { // a file takes the place of the folder
			if err := os.WriteFile(dir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			if lost, err := s.Mend(); fails && (!lost || err == nil) || !fails && err != nil {
				t.Errorf("Mend = %t, %v, want %s", lost, err, want)
			}
		}
		if n := strings.Count(log.String()[before:], "worker notify socket "+want); n != 1 {
			t.Errorf("logged %d times, want once %q:\n%s", n, want, log)
		}
	}
}

// A worker of another user can enter the folder.
func TestMendedSocketOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	base := t.TempDir()
	dir := filepath.Join(base, "run")
	err := errors.Join(os.Chmod(filepath.Dir(base), 0o711), os.Chmod(base, 0o711), os.Mkdir(dir, 0o700))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Listen(filepath.Join(dir, "w.notify"), 65534, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := Admit(s.Path(), 65534); !errors.Is(err, os.ErrNotExist) {
		t.Skip(err) // the user cannot enter the folders above
	}
	if lost, err := s.Mend(); !lost || err != nil {
		t.Fatalf("Mend = %v, %v", lost, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("%v, %v, want a folder that all can enter", info, err)
	}
}

// A folder that another user has put in the place of the removed one is not used.
func TestMendedSocketInTheFolderOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const other = 65534
	for name, replace := range map[string]func(dir string) error{
		"folder": func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, other, -1)) },
		"link":   func(dir string) error { return errors.Join(os.Symlink("/", dir), os.Lchown(dir, other, -1)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			s, _ := listenAt(t, filepath.Join(dir, "w.notify"))
			if err := errors.Join(os.RemoveAll(dir), replace(dir)); err != nil {
				t.Fatal(err)
			}
			if lost, err := s.Mend(); !lost || err == nil {
				t.Errorf("Mend = %v, %v", lost, err)
			}
		})
	}
}

//go:build linux && amd64

package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tracer runs this test binary as a child and records the effect of its system calls on the files below a
// directory. It fails on a call that it does not know, so that no change of a file is overlooked.
type tracer struct {
	dir     string
	rec     *recording
	pid     int
	memory  *os.File
	names   map[string]*inode // of existing files, by path below dir
	sizes   map[*inode]int64
	open    map[int]*inode   // by descriptor
	calls   map[int]*sysCall // by thread
	maps    map[uint64]uint64
	pos     int
	changes int // number of calls so far that change or sync a file
	// looking, if not nil, is called before the arguments of a call are read.
	looking func(*sysCall)
	// meddle is called before each such call and may change its outcome.
	meddle func(*sysCall) meddling
	// meddled are the calls that meddle changed.
	meddled []*sysCall
}

// meddling is a changed outcome of a call.
type meddling struct {
	errno syscall.Errno // the error that the call returns
	kill  bool          // kill the process with SIGKILL
	done  bool          // perform the call first; otherwise it is not performed at all
}

// sysCall is a system call that has begun and not returned.
type sysCall struct {
	nr    uint64
	args  [6]uint64
	start int
	// For a call that changes or syncs a file:
	what    string
	changes bool
	sync    bool
	acts    []*diskAct
	node    *inode
	meddling
}

// markFD is the descriptor to which the traced process writes its marks.
const markFD = 3

func newTracer(dir string) (*tracer, error) {
	tr := &tracer{
		dir: dir, rec: &recording{root: &inode{folder: true, entries: make(map[string]*inode)}},
		names: make(map[string]*inode), sizes: make(map[*inode]int64),
	}
	there, err := readFiles(dir)
	if err != nil {
		return nil, err
	}
	tr.names["."] = tr.rec.root
	for path, content := range there {
		n := &inode{label: path, folder: content == nil, content: content}
		if n.folder {
			n.entries = make(map[string]*inode)
		}
		tr.names[path], tr.sizes[n] = n, int64(len(content))
	}
	for path, n := range tr.names {
		if path != "." {
			tr.names[filepath.Dir(path)].entries[filepath.Base(path)] = n
		}
	}
	return tr, nil
}

// run starts the child with this environment and traces it until it ends. The recordings of several runs are
// appended to each other.
func (tr *tracer) run(env []string, output *os.File, limit time.Duration) (unix.WaitStatus, error) {
	type result struct {
		status unix.WaitStatus
		err    error
	}
	done := make(chan result)
	go func() {
		// A process is traced by one thread. This thread ends with the goroutine.
		runtime.LockOSThread()
		status, err := tr.trace(env, output, limit)
		done <- result{status, err}
	}()
	r := <-done
	tr.rec.end = tr.pos
	return r.status, r.err
}

func (tr *tracer) trace(env []string, output *os.File, limit time.Duration) (status unix.WaitStatus, err error) {
	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = null.Close() }()
	tr.pid, err = syscall.ForkExec(program, []string{program}, &syscall.ProcAttr{
		Env:   append(env, "GODEBUG=asyncpreemptoff=1"), // fewer signals to pass on
		Files: []uintptr{null.Fd(), output.Fd(), output.Fd(), null.Fd()},
		Sys:   &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return 0, fmt.Errorf("trace the child: %w", err)
	}
	timeout := time.AfterFunc(limit, func() { _ = unix.Kill(tr.pid, unix.SIGKILL) })
	defer func() {
		if !timeout.Stop() && err == nil {
			err = fmt.Errorf("the child was killed: it did not end within %s", limit)
		}
	}()
	defer func() {
		if err != nil {
			_ = unix.Kill(tr.pid, unix.SIGKILL)
			for {
				var ws unix.WaitStatus
				tid, e := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil)
				if e != nil && !errors.Is(e, unix.EINTR) || tid == tr.pid && (ws.Exited() || ws.Signaled()) {
					return
				}
			}
		}
	}()
	var ws unix.WaitStatus
	if _, err := unix.Wait4(tr.pid, &ws, unix.WALL, nil); err != nil {
		return 0, err
	}
	if err := unix.PtraceSetOptions(tr.pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL|unix.PTRACE_O_TRACECLONE|
		unix.PTRACE_O_TRACEFORK|unix.PTRACE_O_TRACEVFORK); err != nil {
		return 0, err
	}
	tr.memory, err = os.Open(fmt.Sprintf("/proc/%d/mem", tr.pid))
	if err != nil {
		return 0, err
	}
	defer func() { _ = tr.memory.Close() }()
	tr.open, tr.calls, tr.maps = make(map[int]*inode), make(map[int]*sysCall), make(map[uint64]uint64)
	return tr.follow()
}

// follow handles every stop of the process until it ends.
func (tr *tracer) follow() (unix.WaitStatus, error) {
	tid, signal, known := tr.pid, 0, map[int]bool{tr.pid: true}
	for {
		if err := unix.PtraceSyscall(tid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return 0, fmt.Errorf("go on with thread %d: %w", tid, err)
		}
		signal = 0
		var ws unix.WaitStatus
		for {
			var err error
			if tid, err = unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil); err == nil {
				break
			}
			if !errors.Is(err, unix.EINTR) {
				return 0, fmt.Errorf("wait for the child: %w", err)
			}
		}
		switch {
		case (ws.Exited() || ws.Signaled()) && tid == tr.pid:
			return ws, tr.unfinished()
		case !ws.Stopped():
		case ws.StopSignal() == unix.SIGTRAP|0x80:
			if err := tr.stopped(tid); err != nil && !errors.Is(err, unix.ESRCH) {
				return 0, err
			}
		case ws.StopSignal() == unix.SIGTRAP && ws.TrapCause() == unix.PTRACE_EVENT_CLONE:
		case ws.StopSignal() == unix.SIGTRAP && ws.TrapCause() > 0:
			return 0, errors.New("the child has started a process of its own")
		case ws.StopSignal() == unix.SIGSTOP && !known[tid]:
			known[tid] = true // a new thread
		default:
			signal = int(ws.StopSignal())
		}
	}
}

// unfinished handles the calls that the end of the process interrupted. Whether an interrupted sync was done makes
// no difference. Whether a write was done can be read from the file.
func (tr *tracer) unfinished() error {
	for _, c := range tr.calls {
		if !c.changes || c.sync || c.kill && !c.done {
			continue
		}
		if len(c.acts) != 1 || c.acts[0].kind != kindData {
			return fmt.Errorf("the child ended within %s", c.what)
		}
		a, there := c.acts[0], false
		for path, n := range tr.names {
			if n == a.node {
				b, err := os.ReadFile(filepath.Join(tr.dir, path))
				if err != nil {
					return err
				}
				there = int64(len(b)) >= a.at && bytes.HasPrefix(b[a.at:], a.data)
			}
		}
		if !there {
			continue
		}
		if err := tr.end(c, int64(len(a.data))); err != nil {
			return err
		}
	}
	return nil
}

func (tr *tracer) next() int {
	tr.pos++
	return tr.pos - 1
}

// stopped handles the start or the return of a system call.
func (tr *tracer) stopped(tid int) error {
	var info struct {
		op             uint8
		_              [3]uint8
		arch           uint32
		ip, sp         uint64
		number         uint64 // or the result
		args           [6]uint64
		_, reserved, _ uint64
	}
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(info),
		uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return errno
	}
	switch info.op {
	case unix.PTRACE_SYSCALL_INFO_ENTRY:
		c := &sysCall{nr: info.number, args: info.args}
		tr.calls[tid] = c
		if tr.looking != nil {
			tr.looking(c)
		}
		if err := tr.begin(c); err != nil {
			return err
		}
		if !c.changes {
			return nil
		}
		c.start = tr.next()
		tr.changes++
		if tr.meddle != nil {
			c.meddling = tr.meddle(c)
		}
		if c.meddling == (meddling{}) {
			return nil
		}
		tr.meddled = append(tr.meddled, c)
		if c.done {
			return nil
		}
		return tr.set(tid, func(regs *unix.PtraceRegs) { regs.Orig_rax = ^uint64(0) }, c.kill)
	case unix.PTRACE_SYSCALL_INFO_EXIT:
		c := tr.calls[tid]
		delete(tr.calls, tid)
		if c == nil {
			return nil // the first stop of the child or of a thread
		}
		result := int64(info.number)
		if c.meddling != (meddling{}) {
			if err := tr.set(tid, func(regs *unix.PtraceRegs) {
				regs.Rax = uint64(-int64(c.errno))
			}, c.kill); err != nil {
				return err
			}
			if !c.done {
				result = -int64(c.errno)
			}
		}
		return tr.end(c, result)
	}
	return fmt.Errorf("thread %d stopped outside of a system call", tid)
}

func (tr *tracer) set(tid int, change func(*unix.PtraceRegs), kill bool) error {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		return err
	}
	change(&regs)
	if err := unix.PtraceSetRegs(tid, &regs); err != nil {
		return err
	}
	if kill {
		return unix.Kill(tr.pid, unix.SIGKILL)
	}
	return nil
}

func (tr *tracer) bytes(at, n uint64) ([]byte, error) {
	b := make([]byte, n)
	if n, err := tr.memory.ReadAt(b, int64(at)); err != nil {
		return nil, fmt.Errorf("read the child's memory: %w", goneIf(n == 0 && errors.Is(err, io.EOF), err))
	}
	return b, nil
}

// goneIf returns ESRCH instead of err if gone. A thread that has been reported as stopped at the start of a call may be
// killed at any moment, by the exit of another thread or by the timeout. Once all threads are dead, the memory of the
// process is empty and its descriptors are closed. The call is not performed then, since a thread that is killed before
// it has begun a call returns without it. See follow, which ignores ESRCH for this reason.
func goneIf(gone bool, err error) error {
	if gone {
		return unix.ESRCH
	}
	return err
}

// path reads a path from the child's memory and returns it relative to the directory, and false if the path is not
// below it.
func (tr *tracer) path(at uint64) (string, bool, error) {
	b := make([]byte, 4096)
	n, err := tr.memory.ReadAt(b, int64(at)) // the read may reach the end of the memory
	if n == 0 {
		return "", false, fmt.Errorf("read the child's memory: %w", goneIf(errors.Is(err, io.EOF), err))
	}
	name, _, ended := strings.Cut(string(b[:n]), "\x00")
	if !ended {
		return "", false, errors.New("the child named a file that cannot be read")
	}
	if name == "" {
		return "", false, nil
	}
	if !filepath.IsAbs(name) {
		return "", false, fmt.Errorf("the child named %q: the recorder knows no relative paths", name)
	}
	rel, err := filepath.Rel(tr.dir, filepath.Clean(name))
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", false, nil //nolint:nilerr // it is no file of ours
	}
	return rel, true, nil
}

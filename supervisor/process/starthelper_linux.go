package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/eintr"
	"github.com/core-tools/hsu-master/internal/procfs"
)

// The umask and the limits of a process belong to all of its threads, so the master cannot change them for a child
// that it is about to fork. Processes that need them start as this program once more, the start helper, which has
// no other code to run than this file's, and executes the process's program. PID, pidfd and start time remain.
//
// The helper and the master talk over a socket that is closed by execve:
//
//	helper → master: ready, once its runtime does not change the limits any more
//	master → helper: go, after the master has set the limits, which may need rights that the helper does not have
//	helper → master: the error if execve fails, else the end of the socket
//
// Without a master there is no go, and the helper ends.

// helperName is argument 0 of a start helper, by which a later master recognises one.
const helperName = "hsu-master-start"

// helperSocket is the descriptor of the helper's end of the socket. A lease or a leash is at 3.
const helperSocket = 4

// helperPatience bounds the wait for a helper. It takes milliseconds on an idle machine.
const helperPatience = 30 * time.Second

const (
	helperReady = 'r'
	helperGo    = 'g'
)

// errNoStartHelper means that the program of the master does not call RunStartHelper.
var errNoStartHelper = errors.New("a umask, limits of open files and of core dumps, and the scope of the workers " +
	"need a start helper: call master.RunStartHelper first in the main function of this program")

// mayHelp reports whether this program calls RunStartHelper.
var mayHelp atomic.Bool

// RunStartHelper must be called first in the main function of a program whose processes get a umask or limits. It
// returns at once, unless [Start] has started this process as the helper that executes the program of another one.
// Then RunStartHelper does that, and never returns.
func RunStartHelper() {
	if len(os.Args) < 3 || os.Args[0] != helperName {
		mayHelp.Store(true)
		return
	}
	os.Exit(help(os.Args[1], os.Args[2], os.Args[2:]))
}

// helperTask has the attributes that the helper sets before it executes the program.
type helperTask struct {
	Umask     *uint32 `json:",omitempty"`
	OpenFiles *uint64 `json:",omitempty"`
	Core      *uint64 `json:",omitempty"`
}

// help returns the exit code of a helper that could not execute the program.
func help(text, path string, argv []string) int {
	unix.CloseOnExec(helperSocket)
	var task helperTask
	if err := json.Unmarshal([]byte(text), &task); err != nil {
		return 1
	}
	answer := []byte{helperReady}
	if _, err := eintr.Retry(func() (int, error) { return unix.Write(helperSocket, answer) }); err != nil {
		return 1
	}
	n, err := eintr.Retry(func() (int, error) { return unix.Read(helperSocket, answer) })
	if err != nil || n == 0 || answer[0] != helperGo {
		return 1
	}
	if task.Umask != nil {
		unix.Umask(int(*task.Umask))
	}
	key, err := "limits.open_files", setOwnLimit(unix.RLIMIT_NOFILE, task.OpenFiles)
	if err == nil {
		key, err = "limits.core", setOwnLimit(unix.RLIMIT_CORE, task.Core)
	}
	if err == nil {
		key, err = "", syscall.Exec(path, argv, syscall.Environ())
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		_, _ = fmt.Fprintf(os.NewFile(helperSocket, ""), "%s %d", key, errno) // to a master that is gone, perhaps
	}
	return 1
}

// setOwnLimit sets a limit of this process, which has been set already if that needs rights. For open files it also
// makes package syscall forget the limit that it would restore before execve.
func setOwnLimit(resource int, value *uint64) error {
	if value == nil {
		return nil
	}
	return syscall.Setrlimit(resource, &syscall.Rlimit{Cur: *value, Max: *value})
}

// helper is the master's side of a start helper.
type helper struct {
	rights Rights
	conn   *os.File // the master's end
	end    *os.File // the helper's end, until the fork
}

// needsHelper reports whether the process must be started by a helper.
func (r Rights) needsHelper() bool { return r.Umask != nil || r.OpenFiles != nil || r.Core != nil }

func newHelper(r Rights) (*helper, error) {
	if !mayHelp.Load() {
		return nil, errNoStartHelper
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(pair[0], true) // for the poller; the helper uses none
	}
	if err != nil {
		return nil, fmt.Errorf("make a socket for the start helper: %w", err)
	}
	return &helper{
		rights: r,
		conn:   os.NewFile(uintptr(pair[0]), "start helper"), end: os.NewFile(uintptr(pair[1]), "start helper"),
	}, nil
}

func (h *helper) close() error { return errors.Join(h.conn.Close(), h.released()) }

// released closes the helper's end, so that only the helper has it.
func (h *helper) released() error {
	if h.end == nil {
		return nil
	}
	err := h.end.Close()
	h.end = nil
	return err
}

// command returns the program and the arguments of the helper that starts the process.
func (h *helper) command(spec Spec) (path string, argv []string, err error) {
	task, err := json.Marshal(helperTask{
		Umask: h.rights.Umask, OpenFiles: h.rights.OpenFiles, Core: h.rights.Core,
	})
	if err != nil {
		return "", nil, err
	}
	// This very file, even if it was replaced or removed.
	return "/proc/self/exe", append([]string{helperName, string(task), spec.Path}, spec.Args...), nil
}

// finish has the helper, which is child pid, execute the program. The limits of the program are set now: the helper may
// use more.
func (h *helper) finish(pid int, spec Spec) error {
	if err := errors.Join(h.released(), h.conn.SetDeadline(time.Now().Add(helperPatience))); err != nil {
		return err
	}
	var answer [1]byte
	switch n, err := h.conn.Read(answer[:]); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the start helper did not begin within %s", helperPatience)
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("wait for the start helper: %w", err)
	case n == 0:
		return errors.New("the start helper ended before it executed the program")
	}
	if err := errors.Join(h.rights.limit(pid), spec.confine()); err != nil {
		return err
	}
	err := crashpoint.Do(crashpoint.Exec, func() error {
		_, err := h.conn.Write([]byte{helperGo})
		return err
	})
	if err != nil {
		return fmt.Errorf("tell the start helper to execute the program: %w", err)
	}
	const longest = 64 // a process of the unit's user can have the helper send anything
	text, err := io.ReadAll(io.LimitReader(h.conn, longest))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the start helper did not execute the program within %s", helperPatience)
	case err != nil && !errors.Is(err, unix.ECONNRESET): // it ended with an unread message
		return fmt.Errorf("wait for the start helper: %w", err)
	}
	return helperError(string(text))
}

// helperError returns the error that a helper has sent before it ended: a key and a number. Of a program that could
// not be executed the key is empty, and the error bare, as that of a fork.
func helperError(text string) error {
	key, number, sent := strings.Cut(text, " ")
	if !sent { // nothing: the program runs
		return nil
	}
	errno, err := strconv.ParseUint(number, 10, 16)
	switch {
	case err != nil:
		return fmt.Errorf("the start helper failed: %q", text)
	case key == "":
		return syscall.Errno(errno)
	}
	return fmt.Errorf("%s: %w", key, syscall.Errno(errno))
}

// limit sets the limits of a child that does not run its program yet. Without CAP_SYS_RESOURCE that fails if the
// child has another user; a limit that is not above that of this process is then left to the child.
func (r Rights) limit(pid int) error {
	for _, l := range []struct {
		key      string
		resource int
		value    *uint64
	}{{"open_files", unix.RLIMIT_NOFILE, r.OpenFiles}, {"core", unix.RLIMIT_CORE, r.Core}} {
		if l.value == nil {
			continue
		}
		err := crashpoint.Do(crashpoint.Limit, func() error {
			return unix.Prlimit(pid, l.resource, &unix.Rlimit{Cur: *l.value, Max: *l.value}, nil)
		})
		var own unix.Rlimit
		switch {
		case err == nil:
		case errors.Is(err, unix.EPERM) && unix.Getrlimit(l.resource, &own) == nil && *l.value <= own.Max:
		case errors.Is(err, unix.EPERM):
			return fmt.Errorf("limits.%s: %d is above what the master may set: lower it, or raise the hard limit of "+
				"the master (%s)%s: %w", l.key, *l.value, hardLimit(own.Max), systemLimit(l.resource), err)
		default:
			return fmt.Errorf("limits.%s: %w", l.key, err)
		}
	}
	return nil
}

// hardLimit returns a limit for people.
func hardLimit(value uint64) string {
	if value == unix.RLIM_INFINITY {
		return "none"
	}
	return strconv.FormatUint(value, 10)
}

// systemLimit returns the limit of the system above which no process can raise the resource, for people.
func systemLimit(resource int) string {
	if resource != unix.RLIMIT_NOFILE {
		return ""
	}
	text, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err != nil {
		return ""
	}
	return " or fs.nr_open (" + strings.TrimSpace(string(text)) + ")"
}

// InStartHelper reports whether the process is a start helper, which does not run its program yet. While a helper ends,
// its threads end one by one, and a thread that has ended shows no arguments. So each of them is asked.
func (p *Process) InStartHelper() bool {
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	command, err := procfs.ReadAll(procfs.Path(p.id.PID, "cmdline"), buf)
	if err != nil || len(command) > 0 {
		return err == nil && isHelper(command)
	}
	threads, err := procfs.Numbers(procfs.Path(p.id.PID, "task"), buf)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(threads, func(tid int) bool {
		command, err := procfs.ReadAll(procfs.TaskPath(p.id.PID, tid, "cmdline"), buf)
		return err == nil && isHelper(command)
	})
}

// isHelper reports whether the arguments of a process, as in /proc/PID/cmdline, are those of a start helper.
func isHelper(arguments []byte) bool { return bytes.HasPrefix(arguments, []byte(helperName+"\x00")) }

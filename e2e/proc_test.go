//go:build e2e && linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The tests read facts about processes from /proc themselves, because the product's own reading is under test.

// found is a process that belongs to a test.
type found struct {
	pid, ppid, session int
	state              byte
	born               uint64            // ticks since boot
	ticks              int               // of processor time used
	environ            map[string]string // variables named HSU_...
	command, why       string
}

func (f found) String() string {
	return fmt.Sprintf("%d (%s, state %c, parent %d, session %d, found by %s)",
		f.pid, f.command, f.state, f.ppid, f.session, f.why)
}

// processes returns all living processes of this host except its masters: those that name its state directory in
// their environment, or use a path below its directory as an open file, working directory, executable or argument.
// A process that has cleared its environment still has its output or its lease.
func (h *host) processes() []found {
	h.t.Helper()
	stateDir := "-"
	var st unix.Stat_t
	if unix.Stat(h.state, &st) == nil {
		stateDir = fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	}
	var all []found
	for _, pid := range pids() {
		if pid == os.Getpid() || h.others[pid] ||
			slices.ContainsFunc(h.masters, func(m *master) bool { return m.pid == pid && m.running() }) {
			continue
		}
		if ownChild(pid) { // first: after it executes its program, its files are its own
			continue
		}
		if f, ok := look(pid, h.dir, stateDir); ok {
			all = append(all, f)
		}
	}
	return all
}

// ownChild reports whether the process is a child of this one that does not execute its own program yet. Until then
// it has all open files of this process, and so those of each test.
func ownChild(pid int) bool {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return false
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && exe == self
}

func pids() (pids []int) {
	names, err := os.ReadDir("/proc")
	if err != nil {
		panic(err) // without /proc no test is meaningful
	}
	for _, n := range names {
		if pid, err := strconv.Atoi(n.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func look(pid int, dir, stateDir string) (found, bool) {
	// Read the files of a living thread: the first thread may have ended before the others, and then the process's
	// own files are empty.
	folder := fmt.Sprintf("/proc/%d", pid)
	f, err := readStat(folder)
	if err != nil {
		return found{}, false
	}
	f.pid = pid
	tasks, _ := filepath.Glob(folder + "/task/*")
	for _, task := range append([]string{folder}, tasks...) {
		if thread, err := readStat(task); err == nil && strings.IndexByte("ZXx", thread.state) < 0 {
			return f, f.belongs(task, dir, stateDir)
		}
	}
	return found{}, false
}

// belongs reports whether the process belongs to the host, and records why.
func (f *found) belongs(task, dir, stateDir string) bool {
	environ, _ := os.ReadFile(task + "/environ")
	f.environ = map[string]string{}
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		if name, value, _ := strings.Cut(string(entry), "="); strings.HasPrefix(name, "HSU_") {
			f.environ[name] = value
		}
	}
	command, _ := os.ReadFile(task + "/cmdline")
	f.command = strings.TrimSpace(string(bytes.ReplaceAll(command, []byte{0}, []byte{' '})))
	below := func(path string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
	links, _ := filepath.Glob(task + "/fd/*")
	switch {
	case f.environ["HSU_STATE_DIR"] == stateDir:
		f.why = "its environment"
	case strings.Contains(f.command, dir+"/"):
		f.why = "its command line"
	case slices.ContainsFunc(append(links, task+"/cwd", task+"/exe"), func(link string) bool {
		target, err := os.Readlink(link)
		return err == nil && below(target)
	}):
		f.why = "an open file"
	}
	return f.why != ""
}

// readStat reads /proc/PID/stat or that of a thread.
func readStat(folder string) (found, error) {
	text, err := os.ReadFile(folder + "/stat")
	if err != nil {
		return found{}, err
	}
	// The name in brackets may contain anything.
	at := bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[at+1:])) // fields[0] is field 3
	if at < 0 || len(fields) < 20 {
		return found{}, errors.New("not a stat line: " + string(text))
	}
	f := found{state: fields[0][0]}
	f.ppid, _ = strconv.Atoi(fields[4-3])
	f.session, _ = strconv.Atoi(fields[6-3])
	user, _ := strconv.Atoi(fields[14-3])
	system, _ := strconv.Atoi(fields[15-3])
	f.ticks = user + system
	f.born, err = strconv.ParseUint(fields[22-3], 10, 64)
	return f, err
}

// born returns the start time of a living process, 0 if there is none.
func born(t *testing.T, pid int) uint64 {
	t.Helper()
	f, err := readStat(fmt.Sprintf("/proc/%d", pid))
	if err != nil || strings.IndexByte("ZXx", f.state) >= 0 { // it may not have been waited for yet
		return 0
	}
	return f.born
}

// hold opens a pidfd on the process, if it is still the one that was found, and calls act with it.
func (f found) hold(act func(pidfd int)) {
	fd, err := unix.PidfdOpen(f.pid, 0)
	if err != nil {
		return // gone
	}
	defer func() { _ = unix.Close(fd) }()
	if now, err := readStat(fmt.Sprintf("/proc/%d", f.pid)); err == nil && now.born == f.born {
		act(fd)
	}
}

// kill kills a process that a test or a master has left behind.
func (f found) kill() {
	f.hold(func(fd int) { _ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) })
}

// killWorker kills a worker's process with SIGKILL, if it belongs to this host, and returns when the process is
// gone.
func (h *host) killWorker(pid int) {
	h.t.Helper()
	h.signalWorker(pid, syscall.SIGKILL)
	h.awaitGone(pid)
}

// awaitGone returns when a process of this host has ended.
func (h *host) awaitGone(pid int) {
	h.t.Helper()
	waitFor(h.t, fmt.Sprintf("process %d is gone", pid), func() error {
		if slices.ContainsFunc(h.processes(), func(f found) bool { return f.pid == pid }) {
			return errors.New("it lives")
		}
		return nil
	})
}

// awaitStopped returns when a process that got SIGSTOP has stopped: each thread ends its system call before.
func awaitStopped(t *testing.T, pid int) {
	t.Helper()
	waitFor(t, fmt.Sprintf("process %d has stopped", pid), func() error {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil || len(tasks) == 0 {
			return fmt.Errorf("it has no threads, %w", err)
		}
		for _, task := range tasks {
			// A thread that has ended meanwhile is an error too, and gone at the next look.
			if f, err := readStat(task); err != nil || f.state != 'T' {
				return fmt.Errorf("%s: state %c, %w", task, f.state, err)
			}
		}
		return nil
	})
}

func (h *host) signalWorker(pid int, signal syscall.Signal) {
	h.t.Helper()
	for _, f := range h.processes() {
		if f.pid == pid {
			f.hold(func(fd int) { _ = unix.PidfdSendSignal(fd, signal, nil, 0) })
			return
		}
	}
	h.t.Fatalf("process %d is not of this test", pid)
}

// leaders returns the processes that a master started, by worker: each leads the session that it was given.
func (h *host) leaders() map[string][]int {
	h.t.Helper()
	m := map[string][]int{}
	for _, f := range h.processes() {
		if id := f.environ["HSU_WORKER_ID"]; id != "" && f.session == f.pid {
			m[id] = append(m[id], f.pid)
		}
	}
	return m
}

// wantNoTwin checks that each worker of the dump is one process, and that there is no process that the dump does
// not name.
func (h *host) wantNoTwin(d dump) {
	h.t.Helper()
	leaders := h.leaders()
	for _, w := range d.Workers {
		if got := leaders[w.ID]; len(got) != 1 || got[0] != w.PID {
			h.t.Errorf("%s is process %d in the dump, and %v in /proc", w.ID, w.PID, got)
		}
		delete(leaders, w.ID)
	}
	if len(leaders) > 0 {
		h.t.Errorf("processes that the dump does not name: %v", leaders)
	}
}

// wantNothingLeft checks that no process of this host is left in /proc.
func (h *host) wantNothingLeft() {
	h.t.Helper()
	for _, f := range h.processes() {
		h.t.Errorf("left behind: %v", f)
	}
}

// descriptors returns the number of open descriptors of a process.
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

// listening fails if no process listens on the port of 127.0.0.1. It reads the kernel's list and does not connect.
func listening(port int) error {
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), fmt.Sprintf(" 0100007F:%04X 00000000:0000 0A ", port)) {
		return fmt.Errorf("nobody listens on port %d", port)
	}
	return nil
}

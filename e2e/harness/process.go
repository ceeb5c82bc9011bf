//go:build e2e && linux

package harness

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

	"golang.org/x/sys/unix"
)

// Process is a process as /proc shows it. The tests read /proc themselves, because the product's own reading is under
// test.
type Process struct {
	PID, PPID, Session int
	State              byte              // the letter in /proc/PID/stat, such as T
	StartTicks         uint64            // ticks since boot
	CPUTicks           int               // of processor time used
	Environ            map[string]string // variables named HSU_...
	Command            string
	why                string // it belongs to a host
}

func (f Process) String() string {
	return fmt.Sprintf("%d (%s, state %c, parent %d, session %d, found by %s)",
		f.PID, f.Command, f.State, f.PPID, f.Session, f.why)
}

// ProcessesBelow returns the living processes, except this one, that use a path below dir as an open file, working
// directory, executable or argument, or that are workers of the state directory state.
func ProcessesBelow(dir, state string) (found []Process) {
	id := StateID(state)
	for _, pid := range PIDs() {
		if pid == os.Getpid() || ownChild(pid) { // first: after it executes its program, its files are its own
			continue
		}
		if p, ok := inspect(pid, dir, id); ok {
			found = append(found, p)
		}
	}
	return found
}

// StateID returns the name of a state directory in the environment of its workers, "-" if there is no such directory.
func StateID(state string) string {
	var st unix.Stat_t
	if unix.Stat(state, &st) != nil {
		return "-"
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// KillAll kills the processes that find returns until it returns none.
func KillAll(find func() []Process) {
	_ = Poll(func() error {
		left := find()
		for _, p := range left {
			p.Signal(unix.SIGKILL)
		}
		if len(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		return nil
	})
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

// PIDs returns the PIDs of all processes.
func PIDs() (pids []int) {
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

// inspect returns the process if it lives and belongs to a host with the directory and the state.
func inspect(pid int, dir, stateID string) (Process, bool) {
	// Read the files of a living thread: the first thread may have ended before the others, and then the process's
	// own files are empty.
	folder := fmt.Sprintf("/proc/%d", pid)
	f, err := ReadStat(folder)
	if err != nil {
		return Process{}, false
	}
	f.PID = pid
	tasks, _ := filepath.Glob(folder + "/task/*")
	for _, task := range append([]string{folder}, tasks...) {
		if thread, err := ReadStat(task); err == nil && strings.IndexByte("ZXx", thread.State) < 0 {
			return f, f.belongs(task, dir, stateID)
		}
	}
	return Process{}, false
}

// belongs reports whether the process belongs to the host, and records why.
func (f *Process) belongs(task, dir, stateID string) bool {
	environ, _ := os.ReadFile(task + "/environ")
	f.Environ = map[string]string{}
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		if name, value, _ := strings.Cut(string(entry), "="); strings.HasPrefix(name, "HSU_") {
			f.Environ[name] = value
		}
	}
	command, _ := os.ReadFile(task + "/cmdline")
	f.Command = strings.TrimSpace(string(bytes.ReplaceAll(command, []byte{0}, []byte{' '})))
	below := func(path string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
	links, _ := filepath.Glob(task + "/fd/*")
	switch {
	case f.Environ["HSU_STATE_DIR"] == stateID:
		f.why = "its environment"
	case strings.Contains(f.Command, dir+"/"):
		f.why = "its command line"
	case slices.ContainsFunc(append(links, task+"/cwd", task+"/exe"), func(link string) bool {
		target, err := os.Readlink(link)
		return err == nil && below(target)
	}):
		f.why = "an open file"
	}
	return f.why != ""
}

// ReadStat reads /proc/PID/stat or that of a thread.
func ReadStat(folder string) (Process, error) {
	text, err := os.ReadFile(folder + "/stat")
	if err != nil {
		return Process{}, err
	}
	// The name in brackets may contain anything.
	at := bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[at+1:])) // fields[0] is field 3
	if at < 0 || len(fields) < 20 {
		return Process{}, errors.New("not a stat line: " + string(text))
	}
	f := Process{State: fields[0][0]}
	f.PPID, _ = strconv.Atoi(fields[4-3])
	f.Session, _ = strconv.Atoi(fields[6-3])
	user, _ := strconv.Atoi(fields[14-3])
	system, _ := strconv.Atoi(fields[15-3])
	f.CPUTicks = user + system
	f.StartTicks, err = strconv.ParseUint(fields[22-3], 10, 64)
	return f, err
}

// ProgramName returns the name of a process, as ps shows it; "" if there is none.
func ProgramName(pid int) string {
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSuffix(string(comm), "\n")
}

// StartTicks returns the start time of a living process, 0 if there is none.
func StartTicks(pid int) uint64 {
	f, err := ReadStat(fmt.Sprintf("/proc/%d", pid))
	if err != nil || strings.IndexByte("ZXx", f.State) >= 0 { // it may not have been waited for yet
		return 0
	}
	return f.StartTicks
}

// Signal sends a signal to the process, if its PID still belongs to the process that started at StartTicks.
func (f Process) Signal(signal syscall.Signal) {
	fd, err := unix.PidfdOpen(f.PID, 0)
	if err != nil {
		return // gone
	}
	defer func() { _ = unix.Close(fd) }()
	if now, err := ReadStat(fmt.Sprintf("/proc/%d", f.PID)); err == nil && now.StartTicks == f.StartTicks {
		_ = unix.PidfdSendSignal(fd, signal, nil, 0)
	}
}

//go:build e2e && linux

package harness

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
)

// Processes returns all living processes of this host except its masters: those that name its state directory in
// their environment, or use a path below its directory as an open file, working directory, executable or argument.
// A process that has cleared its environment still has its output or its lease.
func (h *Host) Processes() []Process {
	h.T.Helper()
	return slices.DeleteFunc(ProcessesBelow(h.Dir, h.State), func(p Process) bool {
		return h.Others[p.PID] ||
			slices.ContainsFunc(h.masters, func(m *Master) bool { return m.PID == p.PID && m.Running() })
	})
}

// KillWorker kills a worker's process with SIGKILL, if it belongs to this host, and returns when the process is
// gone.
func (h *Host) KillWorker(pid int) {
	h.T.Helper()
	h.SignalWorker(pid, syscall.SIGKILL)
	h.awaitGone(pid)
}

// SignalWorker sends a signal to a process of this host.
func (h *Host) SignalWorker(pid int, signal syscall.Signal) {
	h.T.Helper()
	for _, f := range h.Processes() {
		if f.PID == pid {
			f.Signal(signal)
			return
		}
	}
	h.T.Fatalf("process %d is not of this test", pid)
}

// awaitGone returns when a process of this host has ended.
func (h *Host) awaitGone(pid int) {
	h.T.Helper()
	WaitFor(h.T, fmt.Sprintf("process %d is gone", pid), func() error {
		if slices.ContainsFunc(h.Processes(), func(f Process) bool { return f.PID == pid }) {
			return errors.New("it lives")
		}
		return nil
	})
}

// Leaders returns the processes that a master started, by worker: each leads the session that it was given.
func (h *Host) Leaders() map[string][]int {
	h.T.Helper()
	m := map[string][]int{}
	for _, f := range h.Processes() {
		if id := f.Environ["HSU_WORKER_ID"]; id != "" && f.Session == f.PID {
			m[id] = append(m[id], f.PID)
		}
	}
	return m
}

// WantNoTwin checks that each worker of the dump is one process, and that there is no process that the dump does
// not name. The command of a health check may run at any time, and no dump names it.
func (h *Host) WantNoTwin(d Dump) {
	h.T.Helper()
	leaders := h.Leaders()
	for _, w := range d.Workers {
		if got := leaders[w.ID]; len(got) != 1 || got[0] != w.PID {
			h.T.Errorf("%s is process %d in the dump, and %v in /proc", w.ID, w.PID, got)
		}
		delete(leaders, w.ID)
	}
	maps.DeleteFunc(leaders, func(id string, _ []int) bool { return strings.HasSuffix(id, "/probe") })
	if len(leaders) > 0 {
		h.T.Errorf("processes that the dump does not name: %v", leaders)
	}
}

// WantNothingLeft checks that no process of this host is left in /proc.
func (h *Host) WantNothingLeft() {
	h.T.Helper()
	for _, f := range h.Processes() {
		h.T.Errorf("left behind: %v", f)
	}
}

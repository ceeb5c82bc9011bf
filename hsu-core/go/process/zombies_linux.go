package process

import (
	"bytes"
	"os"
	"strconv"
)

// onlyZombies reports whether all remaining processes of the group are zombies. Their parent may never reap them,
// for example in a container whose first process does not reap orphans. It returns false if that cannot be read.
func onlyZombies(group int) bool {
	dir, err := os.Open("/proc")
	if err != nil {
		return false
	}
	names, err := dir.Readdirnames(-1)
	_ = dir.Close()
	if err != nil {
		return false
	}
	found := false
	for _, name := range names {
		if _, err := strconv.Atoi(name); err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // gone
		}
		// The line is: pid (comm) state ppid pgrp …, and comm may contain blanks and parentheses. See
		// proc_pid_stat(5).
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		const state, pgrp, threads = 0, 2, 17
		if len(fields) <= threads || string(fields[pgrp]) != strconv.Itoa(group) {
			continue
		}
		// A process whose first thread has ended also shows Z while its other threads run.
		if string(fields[state]) != "Z" || string(fields[threads]) != "1" {
			return false
		}
		found = true
	}
	return found
}

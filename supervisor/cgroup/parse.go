package cgroup

import (
	"bytes"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// folder returns the folder of the v2 cgroup that the text of /proc/PID/cgroup names, below the mount point
// in the text of /proc/PID/mountinfo (cgroups(7), proc(5)).
func folder(cgroups, mounts []byte) (string, bool) {
	var cgroup string
	for line := range bytes.Lines(cgroups) {
		if name, found := bytes.CutPrefix(bytes.TrimRight(line, "\n"), []byte("0::")); found {
			cgroup = string(name)
		}
	}
	// "/.." is above the root of this process's cgroup namespace, where nothing is mounted.
	if !strings.HasPrefix(cgroup, "/") || slices.Contains(strings.Split(cgroup, "/"), "..") {
		return "", false
	}
	for line := range bytes.Lines(mounts) {
		// ID, parent ID, device, root, mount point, options, ..., "-", type, ...
		fields := strings.Fields(string(line))
		dash := slices.Index(fields, "-")
		if dash < 6 || dash+1 >= len(fields) || fields[dash+1] != "cgroup2" {
			continue
		}
		root, point := unescapeMount(fields[3]), unescapeMount(fields[4])
		below := cgroup
		if root != "/" {
			var found bool
			if below, found = strings.CutPrefix(cgroup, root); !found || below != "" && below[0] != '/' {
				continue
			}
		}
		return path.Join(point, below), true
	}
	return "", false
}

// unescapeMount undoes the octal escapes of mountinfo: space, tab, newline and
// backslash.
func unescapeMount(text string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(text)
}

// parseCPUStat returns the processor time in the text of a cgroup's cpu.stat (cgroups(7)).
func parseCPUStat(text []byte) (time.Duration, bool) {
	for line := range bytes.Lines(text) {
		value, found := bytes.CutPrefix(line, []byte("usage_usec "))
		if !found {
			continue
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/int64(time.Microsecond) {
			return 0, false
		}
		return time.Duration(n) * time.Microsecond, true
	}
	return 0, false
}

// parseMemoryEvents returns how many processes the kernel has killed because memory ran out, from the text of a
// cgroup's memory.events, and whether one of these times the limit of the cgroup was the reason.
func parseMemoryEvents(text []byte) (killed uint64, atLimit bool) {
	for line := range bytes.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		n, err := strconv.ParseUint(value, 10, 64)
		switch {
		case err != nil:
		case name == "oom_kill":
			killed = n
		case name == "oom":
			atLimit = n > 0
		}
	}
	return killed, atLimit
}

// parseMembers reads cgroup.procs: one PID a line (cgroups(7)).
func parseMembers(text []byte) []int {
	var found []int
	for field := range bytes.FieldsSeq(text) {
		// 0 stands for a process outside of this PID namespace.
		if pid, err := strconv.ParseUint(string(field), 10, 31); err == nil && pid > 0 {
			found = append(found, int(pid))
		}
	}
	return found
}

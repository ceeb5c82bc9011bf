package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// CPUTime returns the processor time that a cgroup has used, also by processes that have ended. The kernel counts it
// without any controller. It returns false if it cannot be read.
func CPUTime(dir string) (time.Duration, bool) {
	text, _ := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	return parseCPUStat(text)
}

// Populated reports whether a process lives in a cgroup or below it.
func Populated(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	return err == nil && strings.Contains("\n"+string(text), "\npopulated 1\n")
}

// OutOfMemory describes the processes of a cgroup that the kernel has killed because memory ran out, with the next step
// of an operator. It returns "" if there are none, or if the memory controller, which counts them, is not enabled.
func OutOfMemory(dir string) string {
	text, _ := os.ReadFile(filepath.Join(dir, "memory.events"))
	killed, atLimit := parseMemoryEvents(text)
	if killed == 0 {
		return ""
	}
	what := "a process of it"
	if killed > 1 {
		what = fmt.Sprintf("%d processes of it", killed)
	}
	if !atLimit {
		return "the kernel has killed " + what + " because the host ran out of memory"
	}
	return "the kernel has killed " + what + " because it reached limits.memory: raise that, or mend its use of memory"
}

//go:build crashpoints

package crashpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Enabled tells whether points are compiled in.
const Enabled = true

// EnvPoint selects the point to crash at: "name" for its first hit, "name:N"
// for its Nth.
const EnvPoint = "HSU_CRASH_POINT"

var (
	target, nth = selected()
	hits        atomic.Int64
)

func selected() (string, int64) {
	name, count, found := strings.Cut(os.Getenv(EnvPoint), ":")
	if !found {
		return name, 1
	}
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil || n < 1 {
		panic("crashpoint: " + EnvPoint + "=" + os.Getenv(EnvPoint) + ": want name or name:N")
	}
	return name, n
}

// Hit kills this process with SIGKILL where name is the selected point: no
// deferred call, no flush, no signal handler runs, as in a real crash.
func Hit(name string) {
	if name != target || hits.Add(1) != nth {
		return
	}
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Signal(syscall.SIGKILL)
	}
	select {}
}

package process

import (
	"time"

	"golang.org/x/sys/unix"
)

// BootTime returns the time since boot, suspended time included (CLOCK_BOOTTIME).
// It never steps, and goes on over a restart of this process: together with BootID
// it tells how long ago something was recorded.
func BootTime() time.Duration {
	var ts unix.Timespec
	// The clock exists since Linux 2.6.39, and the pointer is good: it cannot fail.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

package process

import (
	"time"

	"golang.org/x/sys/unix"
)

// BootTime returns the time since boot, including suspended time (CLOCK_BOOTTIME). It never steps and continues
// over a restart of this process. Together with BootID it dates a record.
func BootTime() time.Duration {
	var ts unix.Timespec
	// This cannot fail: the clock exists since Linux 2.6.39 and the pointer is valid.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

package process

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/cgroup"
)

// CPUTime returns the use of the processor by the family: that of its cgroup if it has one, which misses nobody, and
// otherwise the sum over its members and the children that they have reaped.
func (f Family) CPUTime(ctx context.Context) (Usage, error) {
	members, err := f.Members(ctx)
	if err != nil {
		return Usage{}, fmt.Errorf("read the processor time of a family: %w", err)
	}
	var sum Usage
	for _, m := range members {
		one := usageOf("/proc/" + strconv.Itoa(m.PID))
		sum.CPU += one.CPU
		sum.Blocked = sum.Blocked || one.Blocked
	}
	if used, ok := f.cgroupCPU(); ok {
		sum.CPU = used
	}
	return sum, nil
}

// cgroupCPU returns the use of the processor by the cgroup of the family. It returns false if there is none, or if it
// cannot be read.
func (f Family) cgroupCPU() (time.Duration, bool) {
	if f.Cgroup == "" {
		return 0, false
	}
	return cgroup.CPUTime(f.Cgroup)
}

// usageOf returns the use of the processor by the process with that folder in /proc. A process that has ended uses
// none.
func usageOf(folder string) Usage {
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	line, err := procfs.ReadAll(folder+"/stat", buf)
	if err != nil {
		return Usage{}
	}
	s, err := procfs.ParseStat(line)
	if err != nil {
		return Usage{}
	}
	u := Usage{
		CPU:     time.Duration(s.CPUTicks) * procfs.Tick, //nolint:gosec // ticks of processor time
		Blocked: s.Blocked(),
	}
	if u.Blocked || s.Threads <= 1 {
		return u
	}
	threads, _ := procfs.Numbers(folder+"/task", buf)
	for _, tid := range threads {
		line, err := procfs.ReadAll(folder+"/task/"+strconv.Itoa(tid)+"/stat", buf)
		if err != nil {
			continue // this thread has ended
		}
		if t, err := procfs.ParseStat(line); err == nil && t.Blocked() {
			u.Blocked = true
			break
		}
	}
	return u
}

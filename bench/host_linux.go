package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime returns the processor time, in user and system mode together, that all threads of a process, including
// ended ones, have used since its start. It is the value of rusage, but available for any process and to the
// nanosecond (clock_getcpuclockid(3)).
func cpuTime(pid int) (time.Duration, error) {
	const schedClock = 2 // CPUCLOCK_SCHED of include/linux/posix-timers.h
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil { //nolint:gosec // a PID has 22 bits
		return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// cpuTimes returns the sum of several processes' cpuTime.
func cpuTimes(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		used, err := cpuTime(pid)
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// residentSize returns the resident memory of a process in bytes.
func residentSize(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid)) // exact, unlike statm
	if err != nil {
		return 0, fmt.Errorf("resident size: %w", err)
	}
	size, err := parseResident(text)
	if err != nil {
		return 0, fmt.Errorf("resident size of process %d: %w", pid, err)
	}
	return size, nil
}

// tmpfs is the file system on which a sync costs nothing; the numbers here and below are from linux/magic.h.
const tmpfs = 0x01021994

var fileSystems = map[int64]string{
	tmpfs: "tmpfs", 0xEF53: "ext4", 0x58465342: "xfs", 0x9123683E: "btrfs", 0x794C7630: "overlayfs",
	0x2FC12FC1: "zfs", 0x6969: "nfs", 0xF2F52010: "f2fs", 0x01021997: "9p",
}

// fileSystem returns the type of the file system of dir.
func fileSystem(dir string) (magic int64, name string, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, "", fmt.Errorf("file system of %s: %w", dir, err)
	}
	magic = int64(st.Type) //nolint:unconvert // 32 bits wide on some machines
	if name = fileSystems[magic]; name == "" {
		name = fmt.Sprintf("file system %#x", magic)
	}
	return magic, name, nil
}

// thisHost describes the machine, except the load after the run and the stolen time.
func thisHost(dir string) (host, error) {
	_, fs, err := fileSystem(dir)
	if err != nil {
		return host{}, err
	}
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return host{}, fmt.Errorf("name of the kernel: %w", err)
	}
	h := host{
		CPUs: runtime.NumCPU(), CPU: "processor", Go: runtime.Version(),
		Kernel: unix.ByteSliceToString(uname.Release[:]), Folder: dir, FileSystem: fs,
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, after, found := bytes.Cut(text, []byte("model name")); found {
			line, _, _ := bytes.Cut(after, []byte("\n"))
			h.CPU = strings.Trim(string(line), " \t:")
		}
	}
	h.LoadBefore, err = loadAverage()
	return h, err
}

func loadAverage() (string, error) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "", fmt.Errorf("load average: %w", err)
	}
	return parseLoad(string(text))
}

func processors() (processorTimes, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return processorTimes{}, fmt.Errorf("processor times: %w", err)
	}
	return parseProcessors(string(text))
}

const (
	calmShare  = 0.15 // of the processors that others may use
	calmSample = 300 * time.Millisecond
)

// awaitCalm waits, no longer than l.calm, until other processes leave the processors idle. It does not look at
// measured values, so it does not select results. If the machine does not become calm, the next measurement takes
// place nevertheless, and is counted in l.restless.
func (l *lab) awaitCalm(ctx context.Context) error {
	if l.calm == 0 {
		return nil
	}
	for deadline := time.Now().Add(l.calm); ; {
		before, err := processors()
		if err != nil {
			return err
		}
		if err := pause(ctx, calmSample); err != nil {
			return err
		}
		after, err := processors()
		if err != nil {
			return err
		}
		if after.busySince(before) < calmShare {
			return nil
		}
		if time.Now().After(deadline) {
			l.restless++
			return nil
		}
	}
}

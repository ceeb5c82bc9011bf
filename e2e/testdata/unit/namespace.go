package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// round is how many numbers are left when a namespace is handed out. The first 300
// are not used again when numbers go round (RESERVED_PIDS of the kernel).
const round = 100

// beFirst is process 1 of a PID namespace: it shows the namespace's own /proc, lets
// numbers be used up soon (number is pid_max) and reaps whoever nobody else reaps.
func beFirst(o options) {
	err := syscall.Mount("proc", "/proc", "proc", 0, "")
	if err == nil && o.number > 0 {
		err = os.WriteFile("/proc/sys/kernel/pid_max", []byte(strconv.Itoa(o.number)), 0)
		for last := 0; err == nil && last < o.number-round; {
			last, err = useUp()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "unit:", err)
		os.Exit(1)
	}
	leave(o.record, "init")
	for {
		if _, err := syscall.Wait4(-1, nil, 0, nil); err != nil {
			time.Sleep(time.Millisecond) // it has no children now
		}
	}
}

// useUp has a process of some numbers come and go, and returns its own.
func useUp() (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, "-as", "decoy", "-number", "-1")
	err = cmd.Run()
	return cmd.Process.Pid, err
}

// beReborn starts processes until one of them has the number, which then is a decoy.
func beReborn(o options) {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	for {
		if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", o.number)); err == nil {
			os.Exit(3) // it has the number itself: another one must try
		}
		cmd := exec.Command(self, "-as", "decoy", "-record", o.record, "-number", strconv.Itoa(o.number))
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		if cmd.Process.Pid == o.number {
			leave(o.record, "reborn")
			_ = cmd.Wait()
			os.Exit(0)
		}
		_ = cmd.Wait()
	}
}

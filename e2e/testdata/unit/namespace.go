package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// lastNumber is the file with the PID of the newest task of a PID namespace (proc(5)). The next task gets the first
// free PID above it.
const lastNumber = "/proc/sys/kernel/ns_last_pid"

// continueBehind makes the PIDs of this PID namespace continue above number.
func continueBehind(number int) error {
	return os.WriteFile(lastNumber, []byte(strconv.Itoa(number)), 0)
}

// beFirst is process 1 of a PID namespace: it mounts the namespace's own /proc, makes all further processes get
// PIDs above o.number, and reaps orphans.
func beFirst(o options) {
	err := syscall.Mount("proc", "/proc", "proc", 0, "")
	if err == nil && o.number > 0 {
		err = continueBehind(o.number)
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

// asFirst executes a program as process 1 of a PID namespace, which sees its own /proc.
func asFirst(args []string) {
	err := syscall.Mount("proc", "/proc", "proc", 0, "")
	if err == nil {
		err = syscall.Exec(args[0], args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, "unit:", err)
	os.Exit(1)
}

// beReborn starts a decoy that has the PID o.number. If a thread gets it first, beReborn tries again.
func beReborn(o options) {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	for {
		if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", o.number)); err == nil {
			os.Exit(3) // a thread of this process has it for good: another process must try
		}
		cmd := exec.Command(self, "-as", "decoy", "-record", o.record, "-number", strconv.Itoa(o.number))
		err := continueBehind(o.number - 1)
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
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

package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// spawn starts a descendant of a worker and returns when it runs.
//
//	child     ignores SIGTERM
//	stopped   the same, and stops itself
//	bare      the same, with a cleared environment
//	daemon    in a session of its own, its parent dead
//	nolease   the same, with every inherited descriptor closed
//	baredaemon  in a session of its own, its parent dead, its environment cleared
//	chain     a process that lives for a moment and starts the next one, each in a session of its own
func spawn(kind, record string) {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	var cmd *exec.Cmd
	switch kind {
	case "child":
		cmd = exec.Command(self, "-as", "sleeper", "-record", record)
	case "stopped":
		cmd = exec.Command(self, "-as", "stopped", "-record", record)
	case "bare":
		cmd = exec.Command("env", "-i", self, "-as", "sleeper", "-record", record)
	case "daemon":
		cmd = exec.Command(self, "-as", "detour+sleeper", "-record", record)
	case "nolease":
		cmd = exec.Command(self, "-as", "detour+nolease", "-record", record)
	case "baredaemon":
		cmd = exec.Command("env", "-i", self, "-as", "detour+sleeper", "-record", record)
	case "chain":
		cmd = exec.Command(self, "-as", "chain", "-record", record)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	default:
		panic("no such descendant: " + kind)
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	go func() { _ = cmd.Wait() }()
}

// descend is the life of a descendant.
func descend(o options) {
	switch o.habit {
	case "detour":
		detour(o)
	case "chain":
		chain(o)
	case "nolease":
		for fd := 3; fd < 64; fd++ {
			if link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil && link[0] == '/' {
				_ = syscall.Close(fd)
			}
		}
	}
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	leave(o.record, o.habit)
	if o.habit == "stopped" {
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	}
	time.Sleep(time.Hour) // longer than any test
	os.Exit(0)
}

// detour starts another process in a session of its own and ends, so that nothing
// of its descent is left to be seen.
func detour(o options) {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(self, "-as", o.descendants[0], "-record", o.record)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	os.Exit(0)
}

// chain lives for a moment, so that no list of processes is ever right about it.
func chain(o options) {
	if os.Getenv("CHAINED") == "" {
		leave(o.record, "chain")
	}
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	time.Sleep(5 * time.Millisecond)
	cmd := exec.Command(self, "-as", "chain", "-record", o.record)
	cmd.Env = append(os.Environ(), "CHAINED=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	os.Exit(0)
}

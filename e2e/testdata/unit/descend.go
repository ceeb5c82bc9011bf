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
//	child       ignores SIGTERM
//	stopped     the same, and stops itself
//	bare        the same, with a cleared environment
//	daemon      in a session of its own, its parent dead
//	nolease     the same, with every inherited descriptor closed
//	baredaemon  in a session of its own, its parent dead, its environment cleared
//	polite      in a session of its own, its parent dead; ends at SIGTERM, and records that it got it
//	barechain   a chain with a cleared environment
//	chain       a process that ignores SIGTERM, lives for a moment and starts the next one,
//	            each in a session of its own
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
	case "polite":
		cmd = exec.Command(self, "-as", "detour+polite", "-record", record)
	case "chain", "barechain":
		cmd = exec.Command(self, "-as", kind, "-record", record)
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

// descend runs as a descendant.
func descend(o options) {
	switch o.habit {
	case "detour":
		detour(o)
	case "chain", "barechain":
		chain(o)
	case "polite":
		asked := make(chan os.Signal, 1)
		signal.Notify(asked, syscall.SIGTERM)
		leave(o.record, "polite")
		<-asked
		leave(o.record, "asked")
		os.Exit(0)
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

// detour starts another process in its own session and exits, so that the process's descent is not visible.
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

// chain lives only for a moment, so that a list of processes is always outdated. It is a shell: SIGTERM can end a
// Go program until the program has begun to ignore it. A chain that its test did not get to end, because it was killed
// itself, ends after some minutes.
func chain(o options) {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	leave(o.record, o.habit)
	environ := os.Environ()
	if o.habit == "barechain" {
		environ = nil
	}
	const link = `[ "$1" -gt 0 ] || exit 0; sleep 0.005; setsid sh -c "$0" "$0" "$(($1 - 1))" & exit 0`
	panic(syscall.Exec("/bin/sh", []string{"sh", "-c", link, link, "30000"}, environ))
}

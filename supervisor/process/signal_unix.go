//go:build unix

package process

import "syscall"

// SignalContinue resumes a process that a signal has stopped.
const SignalContinue = syscall.SIGCONT

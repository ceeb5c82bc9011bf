package main

import "syscall"

// notifyUnix does nothing: Windows has no signals other than those of the console.
func notifyUnix(*signals) {}

func signalOf(error) syscall.Signal { return syscall.SIGTERM }

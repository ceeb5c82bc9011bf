package identity

import "syscall"

// SignalName returns Go's name of a signal. Windows itself has no names for signals.
func SignalName(sig syscall.Signal) string { return sig.String() }

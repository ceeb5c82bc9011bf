package process

import "syscall"

// SignalContinue has no meaning on Windows; sending it returns [errors.ErrUnsupported].
const SignalContinue = syscall.Signal(18)

// SignalName returns Go's name of a signal. Windows itself has no names for signals.
func SignalName(sig syscall.Signal) string { return sig.String() }

package process

import "syscall"

// SignalContinue has no meaning on Windows; sending it is [errors.ErrUnsupported].
const SignalContinue = syscall.Signal(18)

// SignalName returns the name of a signal. Windows has none; Go's are used.
func SignalName(sig syscall.Signal) string { return sig.String() }

package process

import "syscall"

// SignalContinue has no meaning on Windows; sending it returns [errors.ErrUnsupported].
const SignalContinue = syscall.Signal(18)

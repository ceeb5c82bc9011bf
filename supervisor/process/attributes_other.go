//go:build !linux

package process

const accountsSupported = false

// InStartHelper returns false: no process is started here.
func (p *Process) InStartHelper() bool { return false }

// RunStartHelper returns at once: no process is started here.
func RunStartHelper() {}

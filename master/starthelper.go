package master

import "github.com/core-tools/hsu-master/supervisor/process"

// RunStartHelper must be called first in the main function of a program that runs a [Master], or a
// [github.com/core-tools/hsu-master/supervisor.Supervisor], whose units have a umask or limits: their workers start as
// another process of the same program, which sets these and then executes the program of the worker. In that process
// RunStartHelper never returns, in any other one at once. In a program that does not call it, the start of such a
// worker fails with an error that says so.
func RunStartHelper() { process.RunStartHelper() }

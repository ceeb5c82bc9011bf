//go:build crashpoints

package main

import (
	"fmt"
	"os"

	"github.com/core-tools/hsu-master/internal/leaks"
)

// exitLeaked is none of the documented exit codes, so that no test takes it for one.
const exitLeaked = 99

// watchLeaks notes what is open at the start. What it returns is called last of all
// with the exit code, and tells on stderr, after "leak:", what of this process is
// left. That is no success then.
func watchLeaks() func(code int) int {
	left := leaks.Watch()
	return func(code int) int {
		err := left()
		if err == nil {
			return code
		}
		fmt.Fprintf(os.Stderr, "leak: %v\n", err)
		if code == exitDone {
			return exitLeaked
		}
		return code
	}
}

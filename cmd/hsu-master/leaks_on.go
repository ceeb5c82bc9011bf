//go:build crashpoints

package main

import (
	"fmt"
	"os"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/internal/leaks"
)

// exitLeaked differs from all documented exit codes, so that no test mistakes it for one of them.
const exitLeaked = 99

// watchLeaks records the resources that are open at the start. The returned function is called last, with the
// exit code. It prints the leaked resources of this process on stderr, after "leak:", and turns a success into
// exitLeaked.
func watchLeaks() func(code int) int {
	left := leaks.Watch()
	return func(code int) int {
		err := left()
		if err == nil {
			return code
		}
		fmt.Fprintf(os.Stderr, "leak: %v\n", err)
		if code == exit.Done {
			return exitLeaked
		}
		return code
	}
}

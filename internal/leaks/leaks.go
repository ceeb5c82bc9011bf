// Package leaks reports, at the end of a test or of a program under test, goroutines and descriptors that were
// left open. Such leaks pile up while a master runs for weeks.
//
// Tests use it, and programs built with the tag "crashpoints". Using goleak avoids a parser for stacks and a list
// of the runtime's own goroutines.
package leaks

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"go.uber.org/goleak"
)

// patience is the time for goroutines to end and descriptors to be closed. Only a leak makes Watch wait that long, and
// on a busy machine a goroutine that is about to end may need seconds.
var patience = 10 * time.Second

// Watch records the open descriptors and running goroutines. The returned function reports those that are new, or
// nil if there are none. It checks repeatedly for ten seconds, to let ending ones end. Descriptors are checked only on
// systems with /proc.
func Watch() (left func() error) {
	// Opening a file makes the runtime open its poller, which stays open.
	if f, err := os.Open(os.DevNull); err == nil {
		_ = f.Close()
	}
	before, running := descriptors(), goleak.IgnoreCurrent()
	return func() error {
		for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			err := goleak.Find(running) // by itself it looks for about half a second
			more := opened(before, descriptors())
			if err == nil && len(more) == 0 || time.Now().After(deadline) {
				return errors.Join(append([]error{err}, more...)...)
			}
		}
	}
}

// Run is for TestMain: it calls m.Run and returns its exit code. If all tests passed but left something behind, it
// writes that to stderr and returns 1. It does not check while fuzzing, because the engine has goroutines and
// files of its own.
func Run(m interface{ Run() int }, stderr io.Writer) (code int) {
	left := Watch()
	code = m.Run()
	for _, name := range []string{"test.fuzz", "test.fuzzworker"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != f.DefValue {
			return code
		}
	}
	if code != 0 {
		return code // a failed test may leave something behind
	}
	if err := left(); err != nil {
		fmt.Fprintf(stderr, "FAIL: the tests have left behind:\n%v\n", err)
		return 1
	}
	return 0
}

// descriptors returns the descriptors of this process with their targets.
func descriptors() map[string]string {
	files := map[string]string{}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		// The descriptor by which the folder was read is closed already.
		if file, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			files[e.Name()] = file
		}
	}
	return files
}

// opened returns an error for each descriptor that is new or has a new target.
func opened(before, now map[string]string) (more []error) {
	for _, number := range slices.Sorted(maps.Keys(now)) {
		if was, found := before[number]; !found || was != now[number] {
			more = append(more, fmt.Errorf("descriptor %s is open: %s", number, now[number]))
		}
	}
	return more
}

// Package leaks tells, at the end of a test or of a program under test, what was
// begun and not ended: goroutines and descriptors. What is not waited for at the end
// is what piles up while a master runs for weeks.
//
// Tests use it, and programs built with the tag "crashpoints". goleak saves a parser
// of stacks and the list of the runtime's own goroutines.
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

// patience is how long a descriptor that is about to be closed has; goleak gives
// goroutines about the same.
const patience = 500 * time.Millisecond

// Watch notes what is open now. What it returns says which goroutines and
// descriptors are there that were not: nil for none. It looks again for half a
// second, for those that are about to end. Descriptors are known where there is a
// /proc, goroutines all over.
func Watch() (left func() error) {
	// The first file makes the runtime open its poller, which stays.
	if f, err := os.Open(os.DevNull); err == nil {
		_ = f.Close()
	}
	before, running := descriptors(), goleak.IgnoreCurrent()
	return func() error {
		err := goleak.Find(running)
		var more []error
		for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			if more = opened(before, descriptors()); len(more) == 0 || time.Now().After(deadline) {
				return errors.Join(append([]error{err}, more...)...)
			}
		}
	}
}

// Run is for TestMain: it calls m.Run and returns its exit code, but 1 where all
// tests passed and left something behind, which it writes to stderr. While fuzzing it
// does not look: the engine has goroutines and files of its own.
func Run(m interface{ Run() int }, stderr io.Writer) (code int) {
	left := Watch()
	code = m.Run()
	for _, name := range []string{"test.fuzz", "test.fuzzworker"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != f.DefValue {
			return code
		}
	}
	if code != 0 {
		return code // a test that fails may well leave something
	}
	if err := left(); err != nil {
		fmt.Fprintf(stderr, "FAIL: the tests have left behind:\n%v\n", err)
		return 1
	}
	return 0
}

// descriptors are those of this process, and what each stands for.
func descriptors() map[string]string {
	files := map[string]string{}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		// The one that the folder was read by is gone already.
		if file, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			files[e.Name()] = file
		}
	}
	return files
}

// opened are those that were not there before, or stood for something else.
func opened(before, now map[string]string) (more []error) {
	for _, number := range slices.Sorted(maps.Keys(now)) {
		if was, found := before[number]; !found || was != now[number] {
			more = append(more, fmt.Errorf("descriptor %s is open: %s", number, now[number]))
		}
	}
	return more
}

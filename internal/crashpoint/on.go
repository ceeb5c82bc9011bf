//go:build crashpoints

package crashpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Enabled reports whether points are compiled in.
const Enabled = true

const (
	// EnvPoint selects the moment of the crash: "before-fork" or "after-fork" for its first occurrence,
	// "before-fork:3" for the third.
	EnvPoint = "HSU_CRASH_POINT"
	// EnvTrace names a file to which every moment is appended, one per line.
	EnvTrace = "HSU_CRASH_TRACE"
	// EnvFaults names a folder of faults. If it has a file named like a point, the operation is not executed: it fails
	// with the error in the file, such as EIO, or, if the file contains "hang", it waits until the file is gone. With
	// "panic" it panics. A file named "after-" and a point makes an executed operation fail. "kill" kills the process
	// there; "kill:3" kills it at the third occurrence since the file exists, which serves tests of a master that has
	// been running for long.
	EnvFaults = "HSU_FAULT_DIR"
)

var (
	target, nth = selected()
	faults      = os.Getenv(EnvFaults)

	mu    sync.Mutex
	trace = openTrace()
	hits  int
	asked = map[string]int{} // times that a file requested "kill", by moment
)

// Without returns the environment of a child that is no part of the crash, without the variables of this package.
func Without(environ []string) []string {
	return slices.DeleteFunc(environ, func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == EnvPoint || name == EnvTrace || name == EnvFaults
	})
}

func selected() (string, int) {
	name, count, found := strings.Cut(os.Getenv(EnvPoint), ":")
	if !found {
		return name, 1
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 {
		panic("crashpoint: " + EnvPoint + "=" + os.Getenv(EnvPoint) + ": want name or name:N")
	}
	return name, n
}

func openTrace() *os.File {
	path := os.Getenv(EnvTrace)
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic("crashpoint: " + err.Error())
	}
	return f
}

// Do calls act and returns its error, or that of an injected fault.
func Do(p Point, act func() error) error {
	if err := fault(string(p)); err != nil {
		return err
	}
	hit(p.Before())
	if err := act(); err != nil {
		return err
	}
	hit(p.After())
	return fault(p.After())
}

// Pass calls act, which cannot fail. The process can be killed or hang there.
func Pass(p Point, act func()) {
	_ = fault(string(p))
	hit(p.Before())
	act()
	hit(p.After())
	_ = fault(p.After())
}

// hit kills this process with SIGKILL if the moment is the selected one: as in a real crash, no deferred call, no
// flush and no signal handler runs.
func hit(moment string) {
	mu.Lock()
	defer mu.Unlock()
	if trace != nil {
		_, _ = trace.WriteString(moment + "\n")
	}
	if moment != target {
		return
	}
	if hits++; hits == nth {
		die()
	}
}

func die() {
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Signal(syscall.SIGKILL)
	}
	select {}
}

func fault(name string) error {
	if faults == "" {
		return nil
	}
	path := filepath.Join(faults, name)
	for {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		what, count, _ := strings.Cut(strings.TrimSpace(string(text)), ":")
		switch what {
		case "hang":
			time.Sleep(time.Millisecond)
		case "panic":
			panic("injected at " + name)
		case "kill":
			killAt(name, count)
			return nil
		default:
			return errorNamed(what)
		}
	}
}

// killAt kills this process at the count-th call for the name.
func killAt(name, count string) {
	n, err := strconv.Atoi(count)
	if err != nil {
		n = 1
	}
	mu.Lock()
	defer mu.Unlock()
	if asked[name]++; asked[name] == n {
		die()
	}
}

func errorNamed(name string) error {
	for errno, known := range map[syscall.Errno]string{
		syscall.EIO: "EIO", syscall.ENOSPC: "ENOSPC", syscall.EROFS: "EROFS", syscall.EDQUOT: "EDQUOT",
		syscall.EMFILE: "EMFILE", syscall.ENFILE: "ENFILE", syscall.ENOMEM: "ENOMEM", syscall.EAGAIN: "EAGAIN",
		syscall.ENOLCK: "ENOLCK", syscall.EPERM: "EPERM", syscall.EACCES: "EACCES",
	} {
		if known == name {
			return errno
		}
	}
	return fmt.Errorf("injected: %s", name)
}

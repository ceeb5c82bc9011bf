package process

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
)

// confirmTime bounds the wait for a process to leave execve.
const confirmTime = time.Second

// confirm returns an error if a child that was just started runs another file than spec.Exe: the file at spec.Path
// was swapped between the check and the exec. A program that has executed another one by itself, as a shell script
// may do at its end, is not an error.
func confirm(pid int, spec Spec) error {
	if spec.Exe == (identity.FileID{}) {
		return nil
	}
	for deadline := time.Now().Add(confirmTime); ; time.Sleep(100 * time.Microsecond) {
		exe, err := procfs.FileID(procfs.Path(pid, "exe"))
		if err != nil || exe == spec.Exe {
			return nil //nolint:nilerr // a process without a readable program has ended
		}
		name, err := executedAs(pid)
		switch {
		case errors.Is(err, errNoVector) && time.Now().Before(deadline):
		case err != nil || name != spec.Path || emulates(exe):
			return nil //nolint:nilerr // without an auxiliary vector there is nothing to compare
		default:
			return fmt.Errorf("the process runs file %s, not the checked file %s: the program was replaced under way",
				exe, spec.Exe)
		}
	}
}

// emulates reports whether the file is an emulator that also runs this process.
func emulates(exe identity.FileID) bool {
	own, err := procfs.FileID("/proc/self/task/" + strconv.Itoa(unix.Gettid()) + "/exe")
	return err == nil && exe == own
}

// atExecFn is the type of the entry of the auxiliary vector that points to the path given to execve: getauxval(3).
const atExecFn = 31

// errNoVector means that a process has no auxiliary vector yet because it is inside execve.
var errNoVector = errors.New("no auxiliary vector")

// executedAs returns the path that was given to execve for the process's program. It works for processes of this
// user, or of any user as root, that have this process's word size.
func executedAs(pid int) (string, error) {
	vector, err := os.ReadFile(procfs.Path(pid, "auxv"))
	if err != nil {
		return "", err
	}
	for entry := range slices.Chunk(vector, 2*wordSize) {
		if len(entry) == 2*wordSize && word(entry) == atExecFn {
			return stringAt(procfs.Path(pid, "mem"), int64(word(entry[wordSize:])))
		}
	}
	return "", errNoVector
}

const wordSize = bits.UintSize / 8

func word(b []byte) uint64 {
	if wordSize == 4 {
		return uint64(binary.NativeEndian.Uint32(b))
	}
	return binary.NativeEndian.Uint64(b)
}

func stringAt(path string, offset int64) (string, error) {
	mem, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = mem.Close() }() // only read, so nothing is lost
	text := make([]byte, unix.PathMax)
	n, err := mem.ReadAt(text, offset) // shorter at the end of the stack
	if n == 0 {
		return "", err
	}
	text, _, _ = bytes.Cut(text[:n], []byte{0})
	return string(text), nil
}

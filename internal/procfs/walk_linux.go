package procfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/eintr"
)

// Numbers returns the entries of a folder whose names are numbers: PIDs, thread IDs or descriptors.
func Numbers(path string, buf *[]byte) ([]int, error) {
	var found []int
	err := walkNumbers(path, *buf, func(some []int) bool {
		found = append(found, some...)
		return true
	})
	return found, err
}

// walkNumbers calls visit with the numbers in a folder, as many at a time as fit into buf, until visit returns
// false.
func walkNumbers(path string, buf []byte, visit func(some []int) bool) error {
	var some []int
	return walkEntries(path, buf, func(records []byte) bool {
		some = appendNumbers(some[:0], records)
		return visit(some)
	})
}

// walkEntries calls visit with the entries of a folder, in the form of getdents(2), as many at a time as fit into buf,
// until visit returns false.
func walkEntries(path string, buf []byte, visit func(records []byte) bool) error {
	fd, err := eintr.Retry(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		n, err := eintr.Retry(func() (int, error) { return unix.Getdents(fd, buf) })
		if err != nil || n <= 0 || !visit(buf[:n]) {
			return err
		}
	}
}

// appendNumbers appends the names that are numbers.
func appendNumbers(found []int, records []byte) []int {
	for number := range numbered(records) {
		found = append(found, number)
	}
	return found
}

// numbered yields the names that are numbers, each with the inode of the entry. It reads linux_dirent64 records
// (getdents(2)): inode 8 bytes, offset 8, length 2, type 1, then the name and a NUL.
func numbered(records []byte) iter.Seq2[int, uint64] {
	const head = 19
	return func(yield func(int, uint64) bool) {
		for len(records) > head {
			length := int(binary.NativeEndian.Uint16(records[16:]))
			if length <= head || length > len(records) {
				return
			}
			name, _, _ := bytes.Cut(records[head:length], []byte{0})
			n, err := strconv.ParseUint(string(name), 10, 31)
			if err == nil && !yield(int(n), binary.NativeEndian.Uint64(records)) {
				return
			}
			records = records[length:]
		}
	}
}

// passPatience bounds one pass while new processes are started.
const passPatience = 5 * time.Second

// errTooMany is returned if a pass cannot see every process: an error is better than an incomplete list.
var errTooMany = errors.New("processes are started faster than they can be looked at")

// WalkProcesses lists all processes. /proc lists them by rising PID and includes processes that start meanwhile.
// Reading in small pieces, each visited at once, keeps up with a chain of processes that fork and exit, none of
// which lives as long as a pass.
func WalkProcesses(visit func(pids []int) bool) error {
	var pids []int
	return walkProc(func(records []byte) bool {
		pids = appendNumbers(pids[:0], records)
		return visit(pids)
	})
}

// WalkInodes is like WalkProcesses, and visits each process with the inode of its folder in /proc.
func WalkInodes(visit func(processes iter.Seq2[int, uint64]) bool) error {
	return walkProc(func(records []byte) bool { return visit(numbered(records)) })
}

func walkProc(visit func(records []byte) bool) error {
	deadline, late := time.Now().Add(passPatience), false
	var piece [16 * 24]byte
	err := walkEntries("/proc", piece[:], func(records []byte) bool {
		if !visit(records) {
			return false
		}
		late = time.Now().After(deadline)
		return !late
	})
	if late {
		err = errTooMany
	}
	if err != nil {
		return fmt.Errorf("read /proc: %w", err)
	}
	return nil
}

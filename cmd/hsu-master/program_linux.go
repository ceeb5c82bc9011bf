package main

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// releaseProgram unmaps the pages of the program's file, of which a start reads more than a master that has started.
// They stay in the page cache, and those that are used are mapped again. If it fails, they stay mapped.
func releaseProgram() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range bytes.Lines(maps) {
		var from, to uintptr
		var mode, offset, device, inode, path string
		n, _ := fmt.Sscanf(string(line), "%x-%x %s %s %s %s %s", &from, &to, &mode, &offset, &device, &inode, &path)
		// A page of a mapping that can be written would lose its changes.
		if n == 7 && path == program && (mode == "r-xp" || mode == "r--p") {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
		}
	}
}

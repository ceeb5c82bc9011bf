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
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	for _, m := range unchangedMappings(smaps, program) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
	}
}

// mapping is a range of addresses.
type mapping struct{ from, to uintptr }

// unchangedMappings returns the mappings of the file at path, in the text of /proc/self/smaps, that cannot be written
// and have no page of their own. In a program that is independent of its position, the dynamic loader writes addresses
// into a mapping and then protects it: unmapped, such pages would lose them.
func unchangedMappings(smaps []byte, path string) (found []mapping) {
	var at mapping
	var unchanged bool
	for line := range bytes.Lines(smaps) {
		var m mapping
		var mode string
		if n, _ := fmt.Sscanf(string(line), "%x-%x %s", &m.from, &m.to, &mode); n == 3 { // the first line of a mapping
			at = m
			unchanged = (mode == "r-xp" || mode == "r--p") && bytes.HasSuffix(line, []byte(" "+path+"\n"))
			continue
		}
		switch name, value, _ := bytes.Cut(line, []byte(":")); string(name) {
		case "Anonymous", "Swap": // pages that are not those of the file
			unchanged = unchanged && string(bytes.TrimSpace(value)) == "0 kB"
		case "VmFlags": // the last line
			if unchanged {
				found = append(found, at)
			}
		}
	}
	return found
}

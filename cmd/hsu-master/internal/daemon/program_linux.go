package daemon

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// releaseProgram unmaps the pages of the program's file. A start uses most of the program, and a master whose workers
// are idle uses little of it. The pages stay in the page cache, and are mapped again when they are used. If
// releaseProgram fails, they stay mapped.
//
// A page loses its changes when it is unmapped. The loader of a program that is independent of its position
// writes addresses into mappings and protects them afterwards, and a debugger writes breakpoints. The kernel has then
// replaced the page of the file by an anonymous one. So only mappings without an anonymous page are unmapped. Such a
// page does not appear in between, because nothing in the program makes these mappings writable.
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
// and have no page that was written to.
func unchangedMappings(smaps []byte, path string) (found []mapping) {
	var at mapping
	var ours, anonymous bool
	for line := range bytes.Lines(smaps) {
		first, rest, _ := bytes.Cut(line, []byte(" "))
		if bytes.HasSuffix(first, []byte(":")) {
			none := string(bytes.TrimSpace(rest)) == "0 kB"
			switch string(first) {
			case "Anonymous:":
				anonymous = !none
			case "Swap:": // anonymous pages that were swapped out; the kernel writes it after Anonymous
				if ours && !anonymous && none {
					found = append(found, at)
				}
			}
			continue
		}
		// The first line of a mapping: ADDRESSES MODE OFFSET DEVICE INODE PATH.
		mode, _, _ := bytes.Cut(rest, []byte(" "))
		ours = (string(mode) == "r-xp" || string(mode) == "r--p") && bytes.HasSuffix(line, []byte(" "+path+"\n"))
		anonymous = true // unless the kernel says that it has none
		if _, err := fmt.Sscanf(string(first), "%x-%x", &at.from, &at.to); err != nil {
			ours = false
		}
	}
	return found
}

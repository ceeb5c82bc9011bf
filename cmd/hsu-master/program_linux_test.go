package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mapped returns the resident memory, in KiB, of the mappings of the program's file that cannot be written, and reads
// all of them before if touch is set.
func mapped(t *testing.T, touch bool) (resident int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ours := false
	for line := range strings.Lines(string(text)) {
		var from, to uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x", &from, &to); n == 2 {
			ours = strings.HasSuffix(line, " "+program+"\n") && strings.Fields(line)[1][1] == '-'
			if ours && touch {
				if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_POPULATE_READ); errno != 0 {
					t.Skip("pages cannot be read ahead:", errno)
				}
			}
		}
		var size int
		if n, _ := fmt.Sscanf(line, "Rss: %d kB", &size); n == 1 && ours {
			resident += size
		}
	}
	return resident
}

func TestProgramIsUnmapped(t *testing.T) {
	mapped(t, true)
	before := mapped(t, false)
	releaseProgram()
	// The test maps much of it again.
	if after := mapped(t, false); after > before*9/10 {
		t.Errorf("%d KiB of the program are mapped, %d before", after, before)
	}
}

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

// Pages that were written before their mapping was protected keep what was written, as the addresses that the loader of
// a program writes.
func TestWrittenPagesOfTheProgramStay(t *testing.T) {
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	page, err := unix.Mmap(int(program.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	_ = program.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(page); err != nil {
			t.Error(err)
		}
	}()
	page[0] = 'x'
	if err := unix.Mprotect(page, unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	releaseProgram()
	if page[0] != 'x' {
		t.Errorf("the page begins with %q again, want what was written", page[0])
	}
}

package daemon

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func smapsOf(t *testing.T) (text []byte, program string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	if program, err = os.Readlink("/proc/self/exe"); err != nil {
		t.Fatal(err)
	}
	return text, program
}

// residentIn returns how many pages of the mappings are resident in this process.
func residentIn(t *testing.T, mappings []mapping) (pages int) {
	t.Helper()
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pagemap.Close() }()
	const entry, presentBit = 8, 7 // the entry of a page in bytes; bit 63 is in the last one
	size := uintptr(os.Getpagesize())
	for _, m := range mappings {
		entries := make([]byte, (m.to-m.from)/size*entry)
		if _, err := pagemap.ReadAt(entries, int64(m.from/size*entry)); err != nil {
			t.Fatal(err)
		}
		for i := entry - 1; i < len(entries); i += entry {
			pages += int(entries[i] >> presentBit)
		}
	}
	return pages
}

func TestProgramIsUnmapped(t *testing.T) {
	ours := unchangedMappings(smapsOf(t))
	if len(ours) == 0 {
		t.Fatal("no mapping of the program is unchanged, want its text at least")
	}
	memory, err := os.Open("/proc/self/mem") // to read it maps the pages, as any access does
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = memory.Close() }()
	for _, m := range ours {
		if _, err := memory.ReadAt(make([]byte, m.to-m.from), int64(m.from)); err != nil { //nolint:gosec // an address
			t.Fatal(err)
		}
	}
	before := residentIn(t, ours)
	releaseProgram()
	// The test maps some of them again: at least 64 KiB at a time, or as much as the page cache holds in one piece.
	if after := residentIn(t, ours); after >= before {
		t.Errorf("%d pages of the program are mapped, %d before", after, before)
	}
}

// Pages that were written before their mapping was protected keep their content, as the addresses that the loader of
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

func TestUnchangedMappings(t *testing.T) {
	const (
		rest  = "VmFlags: rd mr mw me\n"
		clean = "Anonymous:    0 kB\nSwap:    0 kB\n" + rest
	)
	for name, c := range map[string]struct {
		smaps string
		want  []mapping
	}{
		"text and data": {
			smaps: "00400000-00e03000 r-xp 00000000 fe:00 42    /bin/hsu-master\n" +
				"Rss:    8 kB\nPrivate_Dirty:    8 kB\nAnonymous:    0 kB\nSwap:    0 kB\nSwapPss:    0 kB\n" + rest +
				"00e03000-00f00000 r--p 00a03000 fe:00 42    /bin/hsu-master\n" + clean +
				"00f00000-00f01000 rw-p 00b00000 fe:00 42    /bin/hsu-master\n" + clean +
				"c000000000-c000400000 rw-p 00000000 00:00 0\n" + clean,
			want: []mapping{{0x400000, 0xe03000}, {0xe03000, 0xf00000}},
		},
		"pages that were written": {
			smaps: "00400000-00401000 r--p 00000000 fe:00 42    /bin/hsu-master\n" +
				"Anonymous:    4 kB\nSwap:    0 kB\n" + rest +
				"00401000-00402000 r--p 00000000 fe:00 42    /bin/hsu-master\n" +
				"Anonymous:    0 kB\nSwap:    4 kB\n" + rest,
		},
		"the kernel says nothing": {
			smaps: "00400000-00401000 r--p 00000000 fe:00 42    /bin/hsu-master\nAnonymous:    0 kB\n" + rest +
				"00401000-00402000 r--p 00000000 fe:00 42    /bin/hsu-master\nSwap:    0 kB\n" + rest,
		},
		"other files": {
			smaps: "00400000-00401000 r--p 00000000 fe:00 42    /bin/libc.so\n" + clean +
				"00401000-00402000 r--p 00000000 fe:00 42    /usr/bin/hsu-master\n" + clean +
				"00402000-00403000 r--s 00000000 fe:00 42    /bin/hsu-master\n" + clean,
		},
		"a path with spaces": {
			smaps: "00400000-00401000 r--p 00000000 fe:00 42    /my bin/hsu-master (deleted)\n" +
				clean,
			want: []mapping{{0x400000, 0x401000}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := "/bin/hsu-master"
			if strings.Contains(c.smaps, "/my bin") {
				path = "/my bin/hsu-master (deleted)"
			}
			if got := unchangedMappings([]byte(c.smaps), path); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%x, want %x", got, c.want)
			}
		})
	}
}

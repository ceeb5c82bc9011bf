package procfs

import (
	"encoding/binary"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func FuzzAppendNumbers(f *testing.F) {
	record := make([]byte, 24)
	binary.NativeEndian.PutUint16(record[16:], uint16(len(record)))
	copy(record[19:], "4711")
	f.Add(record)
	f.Fuzz(func(t *testing.T, records []byte) {
		at := 0
		for at+19 < len(records) { // the library skips inode 0, which the kernel never gives
			binary.NativeEndian.PutUint64(records[at:], 1)
			length := int(binary.NativeEndian.Uint16(records[at+16:]))
			if length <= 19 {
				records = records[:at] // the two differ in what they read from here on
			}
			at += length
		}
		records = records[:min(at, len(records))] // the library panics if less than the head of a record is left
		_, _, names := unix.ParseDirent(records, -1, nil)
		var want []int
		for _, name := range names {
			if n, err := strconv.ParseUint(name, 10, 31); err == nil {
				want = append(want, int(n))
			}
		}
		if got := appendNumbers(nil, records); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

package layout

import (
	"bytes"
	"fmt"
	"hash/crc32"
)

// MarkerSize is the length of a marker.
const MarkerSize = 128

// sector is the unit that a disk writes as a whole. A marker within one is never torn: a loss of power keeps or loses
// the whole sector, and SIGKILL interrupts a write only between pages.
const sector = 512

// Marker states that the log up to End is in the copy of a rotation, completely and durably. It is written over the
// beginning of these lines, so that a crash leaves no doubt whether they are to be kept.
type Marker struct {
	ID  uint64 // of the rotation, random: names the copy
	N   uint64 // of the rotated file that the copy becomes
	Cut int64  // the bytes before are collapsed, at a boundary of blocks
	End int64  // of the last line in the copy
}

const (
	markerHead  = "hsu-master rotates: "
	markerTail  = " crc=%08x"
	markerText  = markerHead + "id=%016x n=%016x cut=%016x end=%016x"
	markerFixed = len(markerHead) + 4*16 + len("id= n= cut= end=")
)

// Bytes returns the marker's form in a log, a line.
func (m Marker) Bytes() []byte {
	text := fmt.Appendf(nil, markerText, m.ID, m.N, m.Cut, m.End)
	text = fmt.Appendf(text, markerTail, crc32.ChecksumIEEE(text))
	return append(append(text, bytes.Repeat([]byte(" "), MarkerSize-1-len(text))...), '\n')
}

// ParseMarker reads a marker at the beginning of b.
func ParseMarker(b []byte) (Marker, bool) {
	if len(b) < MarkerSize || !bytes.HasPrefix(b, []byte(markerHead)) {
		return Marker{}, false
	}
	var m Marker
	if _, err := fmt.Sscanf(string(b[:markerFixed]), markerText, &m.ID, &m.N, &m.Cut, &m.End); err != nil {
		return Marker{}, false
	}
	// A marker has one form, so comparing it checks the sum, the digits and the blanks.
	if m.N == 0 || m.Cut < 0 || m.End < m.Cut || !bytes.Equal(m.Bytes(), b[:MarkerSize]) {
		return Marker{}, false
	}
	return m, true
}

// MarkerAt returns the offset of the marker of a rotation whose first line begins at first: there, or at the next
// sector if it would cross a boundary of sectors.
func MarkerAt(first int64) int64 {
	if first%sector+MarkerSize <= sector {
		return first
	}
	return (first/sector + 1) * sector
}

package layout

import "bytes"

// signature begins each filler. To an eye it is blank, and no worker writes a line like it.
const signature = " \t\t \t  \t\t  \t \t\t \t\t\t  \t \t  \t\t   "

// MinFiller is the length of the shortest filler.
const MinFiller = int64(len(signature)) + 1

// Filler returns a blank line of n bytes, at least [MinFiller]. A log is cut at a boundary of blocks, which lies
// within a line: the filler replaces the rest of that line. Readers skip it.
func Filler(n int64) []byte {
	b := bytes.Repeat([]byte(" "), int(n))
	copy(b, signature)
	b[n-1] = '\n'
	return b
}

func isFiller(b []byte) bool { return bytes.HasPrefix(b, []byte(signature)) }

package layout

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// Parts are the parts of a log.
type Parts struct {
	First  int64   // end of the zeros
	Marker *Marker // of the rotation under way, nil if there is none
	At     int64   // offset of the marker, or of the one that the next rotation writes
	Lines  int64   // offset of the first line that no rotated file contains
	Size   int64
}

// Find returns the parts of a log. Workers may write to it meanwhile. NUL bytes at the beginning of the lines count
// as zeros.
func Find(f *os.File) (Parts, error) {
	info, err := f.Stat()
	if err != nil {
		return Parts{}, err
	}
	p := Parts{Size: info.Size()}
	if p.First, err = firstByte(f, p.Size); err != nil {
		return Parts{}, err
	}
	p.At, p.Lines = MarkerAt(p.First), p.First
	head := make([]byte, MarkerSize)
	n, err := readAt(f, head, p.At)
	if err != nil {
		return Parts{}, err
	}
	if m, ok := ParseMarker(head[:n]); ok && m.End >= p.At+MarkerSize && m.End <= p.Size {
		p.Marker, p.Lines = &m, m.End
		return p, nil
	}
	if n, err = readAt(f, head, p.First); err != nil {
		return Parts{}, err
	}
	if isFiller(head[:n]) {
		p.Lines, err = afterLine(f, p.First, p.Size)
	}
	return p, err
}

// readAt reads up to len(buf) bytes. It returns 0 and no error at the end of the file.
func readAt(f *os.File, buf []byte, at int64) (int, error) {
	n, err := f.ReadAt(buf, at)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

const chunk = 64 << 10

// firstByte returns the offset of the first byte that is not NUL, or size if there is none.
func firstByte(f *os.File, size int64) (int64, error) {
	buf := make([]byte, chunk)
	for at := int64(0); at < size; {
		data, err := nextData(f, at, size)
		if err != nil || data >= size {
			return size, err
		}
		n, err := readAt(f, buf[:min(chunk, size-data)], data)
		if err != nil {
			return 0, err
		}
		if i := bytes.IndexFunc(buf[:n], func(r rune) bool { return r != 0 }); i >= 0 {
			return data + int64(i), nil
		}
		if n == 0 { // the file has shrunk
			return data, nil
		}
		at = data + int64(n)
	}
	return size, nil
}

// afterLine returns the offset behind the first newline at or after from; from if there is none.
func afterLine(f *os.File, from, size int64) (int64, error) {
	buf := make([]byte, chunk)
	for at := from; at < size; {
		n, err := readAt(f, buf[:min(chunk, size-at)], at)
		if err != nil || n == 0 {
			return from, err
		}
		if i := bytes.IndexByte(buf[:n], '\n'); i >= 0 {
			return at + int64(i) + 1, nil
		}
		at += int64(n)
	}
	return from, nil
}

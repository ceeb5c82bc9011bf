// Package layout describes the content of a log besides the lines of its worker, and the files beside it.
//
// Rotation moves the old lines of a log into a rotated file while the worker goes on writing. The log itself is never
// renamed, because the worker holds it open. It then consists of:
//
//	zeros    freed bytes, usually a hole
//	marker   only during a rotation: 128 bytes, see [Marker]
//	filler   a blank line, see [Filler]
//	lines    that no rotated file contains
//
// Each part but the last may be missing; see [Find]. The files beside the log worker-0.log are:
//
//	worker-0.log.17.gz       a rotated file, compressed
//	worker-0.log.18          a rotated file; the higher the number, the newer the lines
//	worker-0.log.tmp.ID      the copy of the rotation with that id, in hexadecimal
//	worker-0.log.17.gz.tmp   a compressed file that is being written
//
// Numbers increase for as long as a rotated file is left; without one they begin at 1.
package layout

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	compressed = ".gz"
	unfinished = ".tmp"
)

// Rotated is a rotated file.
type Rotated struct {
	N          uint64
	Path       string
	Compressed bool
}

// RotatedPath returns the path of the n-th rotated file of a log.
func RotatedPath(log string, n uint64) string { return log + "." + strconv.FormatUint(n, 10) }

// CompressedPath returns the path of the compressed form of a rotated file.
func CompressedPath(rotated string) string { return rotated + compressed }

// UnfinishedPath returns the path under which the compressed form of a rotated file is written.
func UnfinishedPath(rotated string) string { return rotated + compressed + unfinished }

// CopyPath returns the path of the copy of the rotation with an id.
func CopyPath(log string, id uint64) string { return fmt.Sprintf("%s%s.%016x", log, unfinished, id) }

// Files are the files beside a log.
type Files struct {
	// Rotated are the rotated files, oldest first. If a compressed file has its uncompressed form beside it, the
	// compressed one, which is complete, comes first.
	Rotated []Rotated
	// Copies are those of rotations that are not complete.
	Copies []string
	// Unfinished are incomplete compressed files.
	Unfinished []string
}

// Folder is the content of a folder of logs when it was read. Reading it once for many logs is cheaper than [List] for
// each of them.
type Folder []fs.DirEntry // sorted by name

// ReadFolder returns the content of a folder. A missing folder has none.
func ReadFolder(dir string) (Folder, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

// Beside returns the files beside a log of the folder.
func (f Folder) Beside(log string) Files {
	var found Files
	prefix := filepath.Base(log) + "."
	first, _ := slices.BinarySearchFunc(f, prefix, func(entry fs.DirEntry, name string) int {
		return strings.Compare(entry.Name(), name)
	})
	for _, entry := range f[first:] {
		name, ok := strings.CutPrefix(entry.Name(), prefix)
		if !ok {
			break
		}
		if !entry.IsDir() {
			found.add(log, name)
		}
	}
	slices.SortFunc(found.Rotated, func(a, b Rotated) int {
		return cmp.Or(cmp.Compare(a.N, b.N), -strings.Compare(a.Path, b.Path))
	})
	return found
}

// List returns the files beside a log.
func List(log string) (Files, error) {
	f, err := ReadFolder(filepath.Dir(log))
	return f.Beside(log), err
}

func (f *Files) add(log, name string) {
	path := log + "." + name
	if id, ok := strings.CutPrefix(name, unfinished[1:]+"."); ok {
		if n, err := strconv.ParseUint(id, 16, 64); err == nil && path == CopyPath(log, n) {
			f.Copies = append(f.Copies, path)
		}
		return
	}
	number, done := strings.CutSuffix(name, unfinished)
	done = !done
	number, isCompressed := strings.CutSuffix(number, compressed)
	n, err := strconv.ParseUint(number, 10, 64)
	switch {
	case err != nil || strconv.FormatUint(n, 10) != number || n == 0:
	case done:
		f.Rotated = append(f.Rotated, Rotated{N: n, Path: path, Compressed: isCompressed})
	case isCompressed:
		f.Unfinished = append(f.Unfinished, path)
	}
}

// None reports whether there are no files.
func (f Files) None() bool { return len(f.Rotated)+len(f.Copies)+len(f.Unfinished) == 0 }

// Next returns the number of the next rotated file.
func (f Files) Next() uint64 {
	if len(f.Rotated) == 0 {
		return 1
	}
	return f.Rotated[len(f.Rotated)-1].N + 1
}

//go:build linux && amd64

package store

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"iter"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// This file models the files that a power cut may leave of a recording. The model is as bad as POSIX allows and no
// worse than a disk can be:
//
//   - A write to a file is certainly on the disk once an fsync or fdatasync of that
//     file has returned that began after the write had returned. Until then each
//     write may be present or not, in any order, and may be torn between two sectors.
//   - The size of a file and its bytes reach the disk independently: a size without
//     its bytes reads as zeroes, and bytes beyond the size are gone.
//   - Names (creations, renames, removals, directories) are certainly on the disk once
//     the directory was synced; until then each may be present or not. Of a rename,
//     both names change or neither does.
//   - A failed sync has made nothing durable, and no later sync does: the kernel
//     marks the pages clean although only its cache has them.

// never is a position after every other position.
const never = math.MaxInt

// inode is a file or directory of the recording, regardless of its name.
type inode struct {
	label  string // the name under which it was created
	folder bool
	// The state before the recording.
	content []byte
	entries map[string]*inode
	most    int64 // its maximum size
}

// diskAct is the effect of one system call on an inode. Positions number all events in order.
type diskAct struct {
	start, end int // start: from here on it may be on the disk; end: the call has returned
	durable    int // from here on it certainly is on the disk
	lost       bool
	what       string
	node       *inode

	kind actKind
	at   int64  // of data
	data []byte // of data
	size int64  // of resize and extend
	name string // of entry
	to   *inode // of entry; nil removes it
	from string // of entry: a name that is removed at the same time, or ""
}

type actKind int

const (
	kindData   actKind = iota + 1
	kindResize         // to exactly size; bytes beyond it are gone
	kindExtend         // to at least size
	kindEntry          // of a directory
)

// syncCall is one fsync or fdatasync of a file or directory.
type syncCall struct {
	start, end int
	node       *inode
	failed     bool
}

// mark is a message from the recorded process.
type mark struct {
	at   int
	text string
}

// recording has all changes of the files below a directory, in order.
type recording struct {
	root  *inode
	acts  []*diskAct // by start
	syncs []syncCall
	marks []mark
	end   int
}

// settle determines from which position on each act is durable. Syncs selected by skip are treated as if they had
// never been called.
func (r *recording) settle(skip func(syncCall) bool) {
	slices.SortStableFunc(r.acts, func(a, b *diskAct) int { return cmp.Compare(a.start, b.start) })
	slices.SortFunc(r.syncs, func(a, b syncCall) int { return cmp.Compare(a.end, b.end) })
	for _, a := range r.acts {
		a.durable, a.lost = never, false
		a.node.most = max(a.node.most, a.size, a.at+int64(len(a.data)))
	}
	for _, s := range r.syncs {
		if skip != nil && skip(s) {
			continue
		}
		for _, a := range r.acts {
			if a.node != s.node || a.end >= s.start || a.durable != never {
				continue
			}
			// An error of one sync does not lose the changes in the file system's journal.
			if s.failed && a.kind == kindData {
				a.lost = true
			}
			if !s.failed && !a.lost {
				a.durable = s.end
			}
		}
	}
}

// overlapping returns an error if two concurrent writes touched the same bytes: their order would be unknown.
func (r *recording) overlapping() error {
	for i, a := range r.acts {
		for _, b := range r.acts[i+1:] {
			if b.start > a.end {
				break
			}
			if a.node == b.node && a.kind == kindData && b.kind == kindData && a.at < b.at+int64(len(b.data)) &&
				b.at < a.at+int64(len(a.data)) {
				return fmt.Errorf("%s and %s overlap in time and place", a.what, b.what)
			}
		}
	}
	return nil
}

// pending returns the acts that had begun before position p and were not durable then.
func (r *recording) pending(p int) []*diskAct {
	var out []*diskAct
	for _, a := range r.acts {
		if a.start < p && a.durable >= p {
			out = append(out, a)
		}
	}
	return out
}

// moments yields, in order, the positions at which a power cut can leave a new result, and whether the process has
// just made a mark there.
func (r *recording) moments() iter.Seq2[int, bool] {
	set := map[int]bool{0: false, r.end: true}
	for _, a := range r.acts {
		set[a.start+1] = false
		if a.durable != never {
			set[a.durable+1] = false
		}
	}
	for _, m := range r.marks {
		set[m.at+1] = true
	}
	return func(yield func(int, bool) bool) {
		for _, p := range slices.Sorted(maps.Keys(set)) {
			if !yield(p, set[p]) {
				return
			}
		}
	}
}

const sectorSize = 512

// fate is the outcome of one pending act. torn reports which sectors of the file its data reached; nil means all of
// them.
type fate struct {
	kept bool
	torn func(sector int64) bool
}

// powerCut is a power cut at one moment. Acts that are durable by then are kept. The outcome of each other act is
// in fates or, if it is not there, in others.
type powerCut struct {
	moment int
	what   string
	fates  map[*diskAct]fate
	others fate
}

func (c powerCut) fate(a *diskAct) fate {
	if a.durable < c.moment {
		return fate{kept: true}
	}
	if f, ok := c.fates[a]; ok {
		return f
	}
	return c.others
}

// diskImage has the files that a power cut left: the content by path, nil for a directory.
type diskImage map[string][]byte

// after returns the files that the power cut leaves.
func (r *recording) after(c powerCut) diskImage {
	// The bytes include those beyond the size: if a write is kept without its extension of the file, its bytes
	// become visible when another extension is kept.
	type file struct {
		bytes []byte
		size  int64
	}
	contents := make(map[*inode]*file)
	entries := make(map[*inode]map[string]*inode)
	content := func(n *inode) *file {
		f, ok := contents[n]
		if !ok {
			f = &file{make([]byte, max(n.most, int64(len(n.content)))), int64(len(n.content))}
			copy(f.bytes, n.content)
			contents[n] = f
		}
		return f
	}
	for _, a := range r.acts {
		if a.start >= c.moment {
			break
		}
		f := c.fate(a)
		if !f.kept {
			continue
		}
		switch a.kind {
		case kindData:
			copySectors(content(a.node).bytes, a, f.torn)
		case kindExtend:
			file := content(a.node)
			file.size = max(file.size, a.size)
		case kindResize:
			file := content(a.node)
			file.size = a.size
			clear(file.bytes[a.size:])
		case kindEntry:
			m, ok := entries[a.node]
			if !ok {
				m = maps.Clone(a.node.entries)
				if m == nil {
					m = make(map[string]*inode)
				}
				entries[a.node] = m
			}
			if a.from != "" {
				delete(m, a.from)
			}
			if a.to == nil {
				delete(m, a.name)
			} else {
				m[a.name] = a.to
			}
		}
	}
	out := make(diskImage)
	var walk func(n *inode, path string)
	walk = func(n *inode, path string) {
		m, ok := entries[n]
		if !ok {
			m = n.entries
		}
		for name, child := range m {
			at := filepath.Join(path, name)
			if child.folder {
				out[at] = nil
				walk(child, at)
				continue
			}
			f := content(child)
			out[at] = f.bytes[:f.size]
		}
	}
	walk(r.root, "")
	return out
}

func copySectors(to []byte, a *diskAct, torn func(int64) bool) {
	if torn == nil {
		copy(to[a.at:], a.data)
		return
	}
	for at, rest := a.at, a.data; len(rest) > 0; {
		n := min(int64(len(rest)), sectorSize-at%sectorSize)
		if torn(at / sectorSize) {
			copy(to[at:], rest[:n])
		}
		at, rest = at+n, rest[n:]
	}
}

var imageSeed = maphash.MakeSeed()

// sum returns a hash that distinguishes different sets of files.
func (f diskImage) sum() uint64 {
	var h maphash.Hash
	h.SetSeed(imageSeed)
	for _, path := range slices.Sorted(maps.Keys(f)) {
		_, _ = fmt.Fprintf(&h, "%q %t %d ", path, f[path] == nil, len(f[path]))
		_, _ = h.Write(f[path])
	}
	return h.Sum64()
}

// write writes the files into dir.
func (f diskImage) write(dir string) error {
	for _, path := range slices.Sorted(maps.Keys(f)) {
		at := filepath.Join(dir, path)
		var err error
		if f[path] == nil {
			err = os.Mkdir(at, 0o700)
		} else {
			err = os.WriteFile(at, f[path], 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readFiles reads all files below dir.
func readFiles(dir string) (diskImage, error) {
	out := make(diskImage)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		out[name] = nil
		if d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(path)
		if b == nil {
			b = []byte{}
		}
		out[name] = b
		return err
	})
	return out, err
}

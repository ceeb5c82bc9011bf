package store

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
)

// FuzzPages changes up to three places of a good database. The walk must end, and if it accepts the database, bbolt
// must be able to read and write it.
func FuzzPages(f *testing.F) {
	dir, content := damagedState(f)
	img, err := boltfile.OpenImage(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		f.Fatal(err)
	}
	content = content[:img.Meta.HighWater*img.Meta.PageSize]
	f.Add(uint32(img.Meta.Root*img.Meta.PageSize), uint32(0), uint32(0), uint64(1), uint64(0), uint64(0))
	f.Add(uint32(24), uint32(1), uint32(0), uint64(1), uint64(0), uint64(0))
	f.Add(uint32(img.Meta.Root*img.Meta.PageSize), uint32(8), uint32(10), uint64(1), uint64(2), uint64(0xffff))
	f.Add(uint32(img.Meta.Freelist*img.Meta.PageSize+10), uint32(0), uint32(0), uint64(0xffff), uint64(0), uint64(0))
	scratch := filepath.Join(quickDir(f), statedir.DatabaseName)
	n := 0
	f.Fuzz(func(t *testing.T, at1, at2, at3 uint32, xor1, xor2, xor3 uint64) {
		b := bytes.Clone(content)
		for _, c := range []struct {
			at  uint32
			xor uint64
		}{{at1, xor1}, {at1 + at2, xor2}, {at1 + at3, xor3}} {
			i := int(c.at) % (len(b) - 8)
			order.PutUint64(b[i:], order.Uint64(b[i:])^c.xor)
		}
		if !agrees(t, scratch, b) {
			return
		}
		if n++; n%10 == 0 {
			tryDamaged(t, dir, fmt.Sprint(n), b, true)
		}
	})
}

// FuzzImage generates a whole database, such as a damaged file or a backup may be. If mend is set, its two meta
// pages get valid checksums, so that their content is accepted.
func FuzzImage(f *testing.F) {
	for _, b := range smallImages(f) {
		f.Add(b, true)
		f.Add(b, false)
		f.Add(b[:len(b)/2], true)
	}
	f.Add([]byte{}, false)
	scratch := filepath.Join(quickDir(f), statedir.DatabaseName)
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		if b = bytes.Clone(b); mend {
			mendMetas(b)
		}
		agrees(t, scratch, b)
	})
}

// mendMetas puts valid checksums into both meta pages.
func mendMetas(b []byte) {
	if len(b) < pageHeaderSize+metaSize {
		return
	}
	for _, at := range []int{0, int(order.Uint32(b[pageHeaderSize+8:]))} {
		if m := at + pageHeaderSize; m > 0 && m <= len(b)-metaSize {
			order.PutUint64(b[m+56:], metaChecksum(b[m:]))
		}
	}
}

// agrees reads a database without bbolt and, if that succeeds, with bbolt. Both must find the same content.
func agrees(t *testing.T, scratch string, b []byte) bool {
	t.Helper()
	c, err := records.ReadContent(bytes.NewReader(b), int64(len(b)), migrations.Current())
	if err != nil {
		if !utf8.ValidString(err.Error()) {
			t.Errorf("error %q", err)
		}
		return false
	}
	overwrite(t, scratch, b)
	s, err := ReadSnapshot(filepath.Dir(scratch))
	if err != nil {
		t.Errorf("it is read without bbolt, with it: %v", err)
		return true
	}
	if diff := cmp.Diff(withoutErrors(c.Snapshot), withoutErrors(s)); diff != "" {
		t.Errorf("read without bbolt, and with it: %s", diff)
	}
	if c.Sequence == 0 && len(c.Workers)+len(c.Events) > 0 {
		t.Errorf("sequence %d", c.Sequence)
	}
	return true
}

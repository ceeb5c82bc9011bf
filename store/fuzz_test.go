package store

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Whatever decodes can be encoded again, and decodes to the same.

func FuzzWorker(f *testing.F) {
	for _, w := range append(goldenV1().Workers, Worker{ID: "x", Desired: DesiredStopped, Status: StatusBackoff}) {
		b, err := encodeWorker(w)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(w.ID, b)
	}
	f.Add("", []byte(nil))
	f.Add("worker-0", []byte("\x0a\x08worker-0\x18\x63"))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		w, err := decodeWorker(key, value)
		if err != nil {
			return
		}
		b, err := encodeWorker(w)
		if err != nil {
			t.Fatalf("%+v decodes and cannot be encoded: %v", w, err)
		}
		again, err := decodeWorker(key, b)
		if diff := cmp.Diff(w, again); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
}

func FuzzEvent(f *testing.F) {
	for _, e := range goldenV1().Events {
		b, err := encodeEvent(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		e, err := decodeEvent(value)
		if err != nil {
			return
		}
		b, err := encodeEvent(e)
		if err != nil {
			t.Fatalf("%+v decodes and cannot be encoded: %v", e, err)
		}
		again, err := decodeEvent(b)
		if diff := cmp.Diff(e, again); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
}

func FuzzMeta(f *testing.F) {
	b, err := encodeMeta(goldenV1().Meta)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, value []byte) {
		m, err := decodeMeta(value)
		if err != nil {
			return
		}
		b, err := encodeMeta(m)
		if err != nil {
			t.Fatalf("%+v decodes and cannot be encoded: %v", m, err)
		}
		again, err := decodeMeta(b)
		if diff := cmp.Diff(m, again); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
}

// FuzzCounter has the two slots of counter.dat.
func FuzzCounter(f *testing.F) {
	var a, b [slotSize]byte
	slot{8, 41}.put(a[:])
	slot{9, 42}.put(b[:])
	f.Add(a[:], b[:])
	f.Add(b[:], a[:])
	f.Add(a[:], bytes.Repeat([]byte{0xff}, slotSize))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		content := make([]byte, counterSize)
		copy(content[:slotDistance], a)
		copy(content[slotDistance:], b)
		got, damaged, err := parseCounter(content)
		s0, err0 := parseSlot(content)
		s1, err1 := parseSlot(content[slotDistance:])
		switch {
		case (err0 != nil && err1 != nil) != (err != nil):
			t.Errorf("slots %v, %v; file %v", err0, err1, err)
		case err == nil && (err0 != nil || err1 != nil) != (damaged != nil):
			t.Errorf("slots %v, %v; damaged %v", err0, err1, damaged)
		case err == nil && got != s0 && got != s1:
			t.Errorf("%v is neither %v nor %v", got, s0, s1)
		case err0 == nil && got.sequence < s0.sequence, err1 == nil && got.sequence < s1.sequence:
			t.Errorf("%v is not the newest of %v and %v", got, s0, s1)
		case err == nil && got.count < 0:
			t.Errorf("count %d", got.count)
		}
	})
}

// FuzzPages changes up to three places of a good database: the walk must end,
// and what it passes bbolt must be able to read.
func FuzzPages(f *testing.F) {
	dir, content := damagedState(f)
	img, err := openImage(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		f.Fatal(err)
	}
	content = content[:img.meta.HighWater*img.meta.PageSize]
	f.Add(uint32(24), uint32(1), uint32(0), uint64(1), uint64(0), uint64(0))
	f.Add(uint32(img.meta.Root*img.meta.PageSize), uint32(8), uint32(10), uint64(1), uint64(2), uint64(0xffff))
	f.Add(uint32(img.meta.Freelist*img.meta.PageSize+10), uint32(0), uint32(0), uint64(0xffff), uint64(0), uint64(0))
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
		img, err := openImage(bytes.NewReader(b), int64(len(b)))
		if err != nil || img.check(true) != nil {
			return
		}
		n++
		tryDamaged(t, dir, fmt.Sprint(n), b, n%10 == 0)
	})
}

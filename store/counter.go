package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// counter.dat holds processed_count ahead of state.db: a count then costs one
// write of 36 bytes and one sync, where a bbolt commit takes five writes and
// two syncs. There are two slots, each within a sector of its own, written in
// turn: a write that a power cut has torn leaves the other one. Slot:
//
//	magic 8 bytes, sequence u64, count u64, short i64, CRC-32C of all that u32,
//	keyed u64, CRC-32C of all that u32
//
// in big endian. The slot with the higher sequence counts. short is since when the
// count may be short, in nanoseconds of Unix time, and 0 where it is exact: see
// Meta.CountShortSince. keyed is how many of the count came by CountOnce; the first
// release neither writes nor reads it, and where it wrote last its checksum is wrong.
// Nothing is ever appended, so that counting needs no space on the disk.
const (
	slotMagic    = "hsuCount"
	slotBase     = 36 // without keyed
	slotSize     = 48
	slotDistance = 4096
	counterSize  = 2 * slotDistance
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type slot struct {
	sequence uint64
	tally
}

func (s slot) put(b []byte) { s.putShort(b, time.Time{}) }

func (s slot) putShort(b []byte, short time.Time) {
	copy(b, slotMagic)
	binary.BigEndian.PutUint64(b[8:], s.sequence)
	binary.BigEndian.PutUint64(b[16:], uint64(s.processed))
	clear(b[24:32])
	if !short.IsZero() {
		binary.BigEndian.PutUint64(b[24:], uint64(short.UnixNano()))
	}
	binary.BigEndian.PutUint32(b[32:], crc32.Checksum(b[:32], castagnoli))
	binary.BigEndian.PutUint64(b[slotBase:], uint64(s.keyed))
	binary.BigEndian.PutUint32(b[slotBase+8:], crc32.Checksum(b[:slotBase+8], castagnoli))
}

func parseSlot(b []byte) (slot, error) {
	if len(b) < slotBase || string(b[:8]) != slotMagic {
		return slot{}, errors.New("no counter slot")
	}
	if crc32.Checksum(b[:32], castagnoli) != binary.BigEndian.Uint32(b[32:]) {
		return slot{}, errors.New("wrong checksum")
	}
	s := slot{binary.BigEndian.Uint64(b[8:]), tally{int64(binary.BigEndian.Uint64(b[16:])), unknownKeyed}}
	if s.processed < 0 {
		return slot{}, fmt.Errorf("count %d", s.processed)
	}
	if len(b) >= slotSize && crc32.Checksum(b[:slotBase+8], castagnoli) == binary.BigEndian.Uint32(b[slotBase+8:]) {
		if keyed := int64(binary.BigEndian.Uint64(b[slotBase:])); keyed >= 0 && keyed <= s.processed {
			s.keyed = keyed
		}
	}
	return s, nil
}

// parseCounter returns the newer slot of a whole counter.dat. With it, damaged
// tells what is wrong with the other one; the count may then be short by what
// the last write had added.
func parseCounter(b []byte) (newest slot, damaged, err error) {
	if len(b) > counterSize { // no more of it is read than tells that
		return slot{}, nil, fmt.Errorf("it has more than %d bytes", counterSize)
	}
	if len(b) < counterSize {
		return slot{}, nil, fmt.Errorf("it has %d bytes, want %d", len(b), counterSize)
	}
	s0, err0 := parseSlot(b)
	s1, err1 := parseSlot(b[slotDistance:])
	switch {
	case err0 != nil && err1 != nil:
		return slot{}, nil, fmt.Errorf("both slots: %w", errors.Join(err0, err1))
	case err0 != nil:
		return s1, fmt.Errorf("slot 0: %w", err0), nil
	case err1 != nil:
		return s0, fmt.Errorf("slot 1: %w", err1), nil
	case s1.sequence > s0.sequence:
		return s1, nil, nil
	}
	return s0, nil, nil
}

// reading is what counter.dat says.
type reading struct {
	slot    slot      // the newer one; sequence 0: there is no such file
	damaged error     // what is wrong with the other one
	short   time.Time // since when the count may be short; zero: it is exact
}

// good tells that the count is the one that was written last.
func (r reading) good() bool { return r.slot.sequence > 0 && r.damaged == nil }

// readCounter reads counter.dat in dir. Where there is none, that is a zero
// count and no error.
func readCounter(dir string) (reading, error) {
	path := filepath.Join(dir, counterName)
	b, err := readSmall(path, counterSize+1)
	if errors.Is(err, fs.ErrNotExist) {
		return reading{}, nil
	}
	if err != nil {
		return reading{}, fmt.Errorf("read the counter: %w", err)
	}
	var r reading
	r.slot, r.damaged, err = parseCounter(b)
	if err != nil {
		return reading{}, &DamagedError{Path: path, Err: err}
	}
	for _, at := range []int{0, slotDistance} {
		if s, err := parseSlot(b[at:]); err == nil && s == r.slot {
			r.short = parseShort(b[at:])
		}
	}
	return r, nil
}

// parseShort reads since when the count of a good slot may be short.
func parseShort(b []byte) time.Time {
	ns := int64(binary.BigEndian.Uint64(b[24:]))
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// counterFile is counter.dat, open for writing. It has no lock of its own.
type counterFile struct {
	f        *os.File
	info     fs.FileInfo
	sequence uint64
	short    time.Time // goes with the count: see slot
	buf      [slotSize]byte
}

// createCounter makes counter.dat anew, with this count in both slots and every
// byte allocated, and opens it.
func (s seams) createCounter(dir string, count tally, short time.Time) (*counterFile, error) {
	path := filepath.Join(dir, counterName)
	err := s.replaceFile(crashpoint.Counter, path, func(f *os.File) error {
		b := make([]byte, counterSize)
		slot{0, count}.putShort(b, short)
		slot{1, count}.putShort(b[slotDistance:], short)
		_, err := f.Write(b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("write the counter anew: %w", err)
	}
	return openCounter(dir, 1, short)
}

// openCounter opens a counter.dat that was read before; its newer slot has this
// sequence.
func openCounter(dir string, sequence uint64, short time.Time) (*counterFile, error) {
	f, err := os.OpenFile(filepath.Join(dir, counterName), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open the counter: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the counter: %w", err), f.Close())
	}
	return &counterFile{f: f, info: info, sequence: sequence, short: short}, nil
}

// write puts count into the older slot. From then on it survives this process,
// though not yet a power cut.
func (c *counterFile) write(count tally) error {
	next := c.sequence + 1
	slot{next, count}.putShort(c.buf[:], c.short)
	at := int64(next%2) * slotDistance
	n, err := c.f.WriteAt(c.buf[:], at)
	if err == nil && n != slotSize {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("write the counter: %w", err)
	}
	c.sequence = next
	return nil
}

// sync makes what was written survive a power cut.
func (c *counterFile) sync() error {
	if err := datasync(c.f); err != nil {
		return fmt.Errorf("sync the counter: %w", err)
	}
	return nil
}

func (c *counterFile) close() error { return c.f.Close() }

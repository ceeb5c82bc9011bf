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
)

// counter.dat holds processed_count ahead of state.db: a count then costs one
// write of 36 bytes and one sync, where a bbolt commit takes five writes and
// two syncs. There are two slots, each within a sector of its own, written in
// turn: a write that a power cut has torn leaves the other one. Slot:
//
//	magic 8 bytes, sequence u64, count u64, 8 bytes of zero, CRC-32C of all that u32
//
// in big endian. The slot with the higher sequence counts. Nothing is ever
// appended, so that counting needs no space on the disk.
const (
	slotMagic    = "hsuCount"
	slotSize     = 36
	slotDistance = 4096
	counterSize  = 2 * slotDistance
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type slot struct {
	sequence uint64
	count    int64
}

func (s slot) put(b []byte) {
	copy(b, slotMagic)
	binary.BigEndian.PutUint64(b[8:], s.sequence)
	binary.BigEndian.PutUint64(b[16:], uint64(s.count))
	clear(b[24:32])
	binary.BigEndian.PutUint32(b[32:], crc32.Checksum(b[:32], castagnoli))
}

func parseSlot(b []byte) (slot, error) {
	if len(b) < slotSize || string(b[:8]) != slotMagic {
		return slot{}, errors.New("no counter slot")
	}
	if crc32.Checksum(b[:32], castagnoli) != binary.BigEndian.Uint32(b[32:]) {
		return slot{}, errors.New("wrong checksum")
	}
	s := slot{binary.BigEndian.Uint64(b[8:]), int64(binary.BigEndian.Uint64(b[16:]))}
	if s.count < 0 {
		return slot{}, fmt.Errorf("count %d", s.count)
	}
	return s, nil
}

// parseCounter returns the newer slot of a whole counter.dat. With it, damaged
// tells what is wrong with the other one; the count may then be short by what
// the last write had added.
func parseCounter(b []byte) (newest slot, damaged, err error) {
	if len(b) != counterSize {
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

// readCounter reads counter.dat in dir. Where there is none, that is a zero
// count and no error.
func readCounter(dir string) (newest slot, damaged, err error) {
	path := filepath.Join(dir, counterName)
	b, err := readSmall(path, counterSize+1)
	if errors.Is(err, fs.ErrNotExist) {
		return slot{}, nil, nil
	}
	if err != nil {
		return slot{}, nil, fmt.Errorf("read the counter: %w", err)
	}
	newest, damaged, err = parseCounter(b)
	if err != nil {
		return slot{}, nil, &DamagedError{Path: path, Err: err}
	}
	return newest, damaged, nil
}

// counterFile is counter.dat, open for writing. It has no lock of its own.
type counterFile struct {
	f        *os.File
	sequence uint64
	buf      [slotSize]byte
}

// createCounter makes counter.dat anew, with this count in both slots and every
// byte allocated, and opens it.
func createCounter(dir string, count int64) (*counterFile, error) {
	path := filepath.Join(dir, counterName)
	err := replaceFile(path, func(f *os.File) error {
		b := make([]byte, counterSize)
		slot{0, count}.put(b)
		slot{1, count}.put(b[slotDistance:])
		_, err := f.Write(b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("write the counter anew: %w", err)
	}
	return openCounter(dir, 1)
}

// openCounter opens a counter.dat that was read before; its newer slot has this
// sequence.
func openCounter(dir string, sequence uint64) (*counterFile, error) {
	f, err := os.OpenFile(filepath.Join(dir, counterName), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open the counter: %w", err)
	}
	return &counterFile{f: f, sequence: sequence}, nil
}

// write puts count into the older slot. From then on it survives this process,
// though not yet a power cut.
func (c *counterFile) write(count int64) error {
	next := c.sequence + 1
	slot{next, count}.put(c.buf[:])
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

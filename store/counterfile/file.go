package counterfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/store/statefile"
)

// A count costs one write of 48 bytes and one sync, whereas a bbolt commit takes five writes and two syncs. There are
// two slots, each within a sector of its own and written in turn: if a power cut tears one write, the other slot
// remains valid. Each slot is
//
//	magic 8 bytes, sequence u64, count u64, short i64, CRC-32C of all that u32,
//	keyed u64, CRC-32C of all that u32
//
// in big endian. The slot with the higher sequence is the valid one. short is the time since when the count may be
// short, in nanoseconds of Unix time, and 0 if the count is exact: see Reading.Short. keyed is the part of the count
// that came with an id. The first release neither writes nor reads keyed; in a slot last written by that release, the
// second checksum is wrong. Nothing is ever appended, so that counting needs no space on the disk.
const (
	slotMagic    = "hsuCount"
	slotBase     = 36 // without keyed
	slotSize     = 48
	slotDistance = 4096
	counterSize  = 2 * slotDistance
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Slot is one of the two records of counter.dat. The one with the higher sequence was written last.
type Slot struct {
	Sequence uint64
	Tally
}

// Put encodes the slot into the beginning of b. short is the time since when the count may be short.
func (s Slot) Put(b []byte, short time.Time) {
	copy(b, slotMagic)
	binary.BigEndian.PutUint64(b[8:], s.Sequence)
	binary.BigEndian.PutUint64(b[16:], uint64(s.Processed))
	clear(b[24:32])
	if !short.IsZero() {
		binary.BigEndian.PutUint64(b[24:], uint64(short.UnixNano()))
	}
	binary.BigEndian.PutUint32(b[32:], crc32.Checksum(b[:32], castagnoli))
	binary.BigEndian.PutUint64(b[slotBase:], uint64(s.Keyed))
	binary.BigEndian.PutUint32(b[slotBase+8:], crc32.Checksum(b[:slotBase+8], castagnoli))
}

func parseSlot(b []byte) (Slot, error) {
	if len(b) < slotBase || string(b[:8]) != slotMagic {
		return Slot{}, errors.New("no counter slot")
	}
	if crc32.Checksum(b[:32], castagnoli) != binary.BigEndian.Uint32(b[32:]) {
		return Slot{}, errors.New("wrong checksum")
	}
	s := Slot{binary.BigEndian.Uint64(b[8:]), Tally{int64(binary.BigEndian.Uint64(b[16:])), UnknownKeyed}}
	if s.Processed < 0 {
		return Slot{}, fmt.Errorf("count %d", s.Processed)
	}
	if len(b) >= slotSize && crc32.Checksum(b[:slotBase+8], castagnoli) == binary.BigEndian.Uint32(b[slotBase+8:]) {
		if keyed := int64(binary.BigEndian.Uint64(b[slotBase:])); keyed >= 0 && keyed <= s.Processed {
			s.Keyed = keyed
		}
	}
	return s, nil
}

// parse returns the newer slot of a complete counter.dat. damaged is the fault of the other slot, if any; the count may
// then lack the amount added by the last write.
func parse(b []byte) (newest Slot, damaged, err error) {
	if len(b) > counterSize { // Read reads only one byte more, which is enough to detect this
		return Slot{}, nil, fmt.Errorf("it has more than %d bytes", counterSize)
	}
	if len(b) < counterSize {
		return Slot{}, nil, fmt.Errorf("it has %d bytes, want %d", len(b), counterSize)
	}
	s0, err0 := parseSlot(b)
	s1, err1 := parseSlot(b[slotDistance:])
	switch {
	case err0 != nil && err1 != nil:
		return Slot{}, nil, fmt.Errorf("both slots: %w", errors.Join(err0, err1))
	case err0 != nil:
		return s1, fmt.Errorf("slot 0: %w", err0), nil
	case err1 != nil:
		return s0, fmt.Errorf("slot 1: %w", err1), nil
	case s1.Sequence > s0.Sequence:
		return s1, nil, nil
	}
	return s0, nil, nil
}

// Reading is the content of counter.dat.
type Reading struct {
	Slot    Slot      // the newer one; sequence 0 means that there is no such file
	Damaged error     // the fault of the other slot
	Short   time.Time // since when the count may be short; zero means exact
}

// Good reports whether the count is certainly the one written last.
func (r Reading) Good() bool { return r.Slot.Sequence > 0 && r.Damaged == nil }

// Read reads the counter.dat at path. If there is no such file, it returns a zero Reading and no error.
func Read(path string) (Reading, error) {
	b, err := statefile.ReadFile(path, counterSize+1)
	if errors.Is(err, fs.ErrNotExist) {
		return Reading{}, nil
	}
	if err != nil {
		return Reading{}, fmt.Errorf("read the counter: %w", err)
	}
	var r Reading
	r.Slot, r.Damaged, err = parse(b)
	if err != nil {
		return Reading{}, &statefile.DamagedError{Path: path, Err: err}
	}
	for _, at := range []int{0, slotDistance} {
		if s, err := parseSlot(b[at:]); err == nil && s == r.Slot {
			r.Short = parseShort(b[at:])
		}
	}
	return r, nil
}

// parseShort reads the time since when the count of a valid slot may be short.
func parseShort(b []byte) time.Time {
	ns := int64(binary.BigEndian.Uint64(b[24:]))
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// File is counter.dat, open for writing. It has no lock of its own.
type File struct {
	f        *os.File
	info     fs.FileInfo
	sequence uint64
	short    time.Time // written with each count: see slot
	buf      [slotSize]byte
}

// Create makes a new counter.dat at path, with count in both slots and every byte allocated, and opens it.
func Create(ops statefile.Ops, path string, count Tally, short time.Time) (*File, error) {
	err := ops.Replace(crashpoint.Counter, path, func(f *os.File) error {
		b := make([]byte, counterSize)
		Slot{0, count}.Put(b, short)
		Slot{1, count}.Put(b[slotDistance:], short)
		_, err := f.Write(b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("write the counter anew: %w", err)
	}
	return Open(path, 1, short)
}

// Open opens a counter.dat that was read before. sequence is that of its newer slot.
func Open(path string, sequence uint64, short time.Time) (*File, error) {
	f, err := safefile.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open the counter: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the counter: %w", err), f.Close())
	}
	return &File{f: f, info: info, sequence: sequence, short: short}, nil
}

// Write puts count into the older slot. The count then survives the death of this process, but not yet a power cut.
func (c *File) Write(count Tally) error {
	next := c.sequence + 1
	Slot{next, count}.Put(c.buf[:], c.short)
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

// Sync makes the written counts survive a power cut.
func (c *File) Sync() error {
	if err := statefile.Datasync(c.f); err != nil {
		return fmt.Errorf("sync the counter: %w", err)
	}
	return nil
}

// Close closes the file.
func (c *File) Close() error { return c.f.Close() }

// Info describes the open file, which may have another path by now.
func (c *File) Info() fs.FileInfo { return c.info }

// Sequence returns the sequence of the slot written last.
func (c *File) Sequence() uint64 { return c.sequence }

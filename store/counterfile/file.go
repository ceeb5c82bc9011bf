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
// two copies, each within a sector of its own and written in turn: if a power cut tears one write, the other copy
// remains valid. Each copy is
//
//	magic 8 bytes, sequence u64, count u64, short i64, CRC-32C of all that u32,
//	keyed u64, CRC-32C of all that u32
//
// in big endian. The copy with the higher sequence is the valid one. short is the time since when the count may be
// short, in nanoseconds of Unix time, and 0 if the count is exact: see Reading.Short. keyed is the part of the count
// that came with an id. The first release neither writes nor reads keyed; in a copy last written by that release, the
// second checksum is wrong. Nothing is ever appended, so that counting needs no space on the disk.
const (
	copyMagic    = "hsuCount"
	copyBase     = 36 // without keyed
	copySize     = 48
	copyDistance = 4096
	counterSize  = 2 * copyDistance
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Copy is one of the two copies of the count in counter.dat. The one with the higher sequence was written last.
type Copy struct {
	Sequence uint64
	Tally
}

// Put encodes the copy into the beginning of b. short is the time since when the count may be short.
func (c Copy) Put(b []byte, short time.Time) {
	copy(b, copyMagic)
	binary.BigEndian.PutUint64(b[8:], c.Sequence)
	binary.BigEndian.PutUint64(b[16:], uint64(c.Processed))
	clear(b[24:32])
	if !short.IsZero() {
		binary.BigEndian.PutUint64(b[24:], uint64(short.UnixNano()))
	}
	binary.BigEndian.PutUint32(b[32:], crc32.Checksum(b[:32], castagnoli))
	binary.BigEndian.PutUint64(b[copyBase:], uint64(c.Keyed))
	binary.BigEndian.PutUint32(b[copyBase+8:], crc32.Checksum(b[:copyBase+8], castagnoli))
}

func parseCopy(b []byte) (Copy, error) {
	if len(b) < copyBase || string(b[:8]) != copyMagic {
		return Copy{}, errors.New("no copy of the count")
	}
	if crc32.Checksum(b[:32], castagnoli) != binary.BigEndian.Uint32(b[32:]) {
		return Copy{}, errors.New("wrong checksum")
	}
	c := Copy{binary.BigEndian.Uint64(b[8:]), Tally{int64(binary.BigEndian.Uint64(b[16:])), UnknownKeyed}}
	if c.Processed < 0 {
		return Copy{}, fmt.Errorf("count %d", c.Processed)
	}
	if len(b) >= copySize && crc32.Checksum(b[:copyBase+8], castagnoli) == binary.BigEndian.Uint32(b[copyBase+8:]) {
		if keyed := int64(binary.BigEndian.Uint64(b[copyBase:])); keyed >= 0 && keyed <= c.Processed {
			c.Keyed = keyed
		}
	}
	return c, nil
}

// parse returns the newer copy of a complete counter.dat. damaged is the fault of the other copy, if any; the count may
// then lack the amount added by the last write.
func parse(b []byte) (newest Copy, damaged, err error) {
	if len(b) > counterSize { // Read reads only one byte more, which is enough to detect this
		return Copy{}, nil, fmt.Errorf("it has more than %d bytes", counterSize)
	}
	if len(b) < counterSize {
		return Copy{}, nil, fmt.Errorf("it has %d bytes, want %d", len(b), counterSize)
	}
	c0, err0 := parseCopy(b)
	c1, err1 := parseCopy(b[copyDistance:])
	switch {
	case err0 != nil && err1 != nil:
		return Copy{}, nil, fmt.Errorf("both copies: %w", errors.Join(err0, err1))
	case err0 != nil:
		return c1, fmt.Errorf("copy 0: %w", err0), nil
	case err1 != nil:
		return c0, fmt.Errorf("copy 1: %w", err1), nil
	case c1.Sequence > c0.Sequence:
		return c1, nil, nil
	}
	return c0, nil, nil
}

// Reading is the content of counter.dat.
type Reading struct {
	Newest  Copy      // the newer one; sequence 0 means that there is no such file
	Damaged error     // the fault of the other copy
	Short   time.Time // since when the count may be short; zero means exact
}

// Good reports whether the count is certainly the one written last.
func (r Reading) Good() bool { return r.Newest.Sequence > 0 && r.Damaged == nil }

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
	r.Newest, r.Damaged, err = parse(b)
	if err != nil {
		return Reading{}, &statefile.DamagedError{Path: path, Err: err}
	}
	for _, at := range []int{0, copyDistance} {
		if c, err := parseCopy(b[at:]); err == nil && c == r.Newest {
			r.Short = parseShort(b[at:])
		}
	}
	return r, nil
}

// parseShort reads the time since when the count of a valid copy may be short.
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
	short    time.Time // written with each count: see Copy.Put
	buf      [copySize]byte
}

// Create makes a new counter.dat at path, with count in both copies and every byte allocated, and opens it.
func Create(ops statefile.Ops, path string, count Tally, short time.Time) (*File, error) {
	err := ops.Replace(crashpoint.Counter, path, func(f *os.File) error {
		b := make([]byte, counterSize)
		Copy{0, count}.Put(b, short)
		Copy{1, count}.Put(b[copyDistance:], short)
		_, err := f.Write(b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("write the counter anew: %w", err)
	}
	return Open(path, 1, short)
}

// Open opens a counter.dat that was read before. sequence is that of its newer copy.
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

// Write puts count into the older copy. The count then survives the death of this process, but not yet a power cut.
func (c *File) Write(count Tally) error {
	next := c.sequence + 1
	Copy{next, count}.Put(c.buf[:], c.short)
	at := int64(next%2) * copyDistance
	n, err := c.f.WriteAt(c.buf[:], at)
	if err == nil && n != copySize {
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

// Sequence returns the sequence of the copy written last.
func (c *File) Sequence() uint64 { return c.sequence }

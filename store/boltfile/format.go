package boltfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
)

// The layout of a bbolt file, all of it in the byte order of the machine:
//
//	page      id u64, flags u16, count u16, overflow u32, then its content
//	meta      magic u32, version u32, page size u32, flags u32,
//	          root page u64, root sequence u64, freelist u64,
//	          high-water mark u64, transaction u64, FNV-1a of all that u64
//	branch    count × {offset u32, key size u32, page u64}, keys
//	leaf      count × {flags u32, offset u32, key size u32, value size u32}, data
//	freelist  count × page u64; a count of 0xFFFF: the first one is the count
//	bucket    as a value in a leaf: root page u64, sequence u64; with root page
//	          0 a leaf page of its own follows inline

const (
	pageHeaderSize    = 16
	metaSize          = 64
	branchElementSize = 16
	leafElementSize   = 16
	bucketHeaderSize  = 16

	branchPage   = 0x01
	leafPage     = 0x02
	metaPage     = 0x04
	freelistPage = 0x10

	bucketEntry = 0x01

	metaMagic   = 0xED0CDAED
	metaVersion = 2

	// noFreelist stands for a freelist that was not written.
	noFreelist = math.MaxUint64

	minPageSize, maxPageSize = 1 << 10, 16 << 20

	// maxTreeDepth is far more than the tree of the largest file needs.
	maxTreeDepth = 64
)

var order = binary.NativeEndian

// Meta is the content of one of the two meta pages, with which a bbolt file begins.
type Meta struct {
	PageSize  uint64
	Root      uint64
	Freelist  uint64
	HighWater uint64 // the first page that was never used
	TxID      uint64
	raw       [metaSize]byte
}

func parseMeta(page []byte) (Meta, error) {
	if len(page) < pageHeaderSize+metaSize {
		return Meta{}, errors.New("too short")
	}
	b := page[pageHeaderSize:][:metaSize]
	switch {
	case order.Uint32(b) != metaMagic:
		return Meta{}, errors.New("not a bbolt file")
	case order.Uint32(b[4:]) != metaVersion:
		return Meta{}, fmt.Errorf("bbolt format %d, want %d", order.Uint32(b[4:]), metaVersion)
	case order.Uint64(b[56:]) != metaChecksum(b):
		return Meta{}, errors.New("wrong checksum")
	}
	m := Meta{
		PageSize:  uint64(order.Uint32(b[8:])),
		Root:      order.Uint64(b[16:]),
		Freelist:  order.Uint64(b[32:]),
		HighWater: order.Uint64(b[40:]),
		TxID:      order.Uint64(b[48:]),
		raw:       [metaSize]byte(b),
	}
	if m.PageSize < minPageSize || m.PageSize > maxPageSize || m.PageSize&(m.PageSize-1) != 0 {
		return Meta{}, fmt.Errorf("%w of %d", errPageSize, m.PageSize)
	}
	return m, nil
}

// errPageSize is returned for a meta page that has a valid checksum but an impossible page size. bbolt would use
// that page.
var errPageSize = errors.New("impossible page size")

func metaChecksum(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b[:56])
	return h.Sum64()
}

// page returns m encoded as the meta page with this id and transaction.
func (m Meta) page(id, txid uint64) []byte {
	p := make([]byte, m.PageSize)
	order.PutUint64(p, id)
	order.PutUint16(p[8:], metaPage)
	b := p[pageHeaderSize:][:metaSize]
	copy(b, m.raw[:])
	order.PutUint64(b[48:], txid)
	order.PutUint64(b[56:], metaChecksum(b))
	return p
}

type metaPair struct {
	valid [2]*Meta
	err   error // why a meta page is not valid
}

// newest chooses as bbolt does: it prefers the second page only if its transaction is higher.
func (p metaPair) newest() *Meta {
	if p.valid[0] == nil || (p.valid[1] != nil && p.valid[1].TxID > p.valid[0].TxID) {
		return p.valid[1]
	}
	return p.valid[0]
}

func readMetas(r io.ReaderAt, size int64) (metaPair, error) {
	var pair metaPair
	read := func(i int, at int64) error {
		buf := make([]byte, pageHeaderSize+metaSize)
		if at+int64(len(buf)) > size {
			return fmt.Errorf("meta page %d: the file ends before it", i)
		}
		if _, err := r.ReadAt(buf, at); err != nil {
			return fmt.Errorf("meta page %d: %w", i, err)
		}
		m, err := parseMeta(buf)
		if err != nil {
			return fmt.Errorf("meta page %d: %w", i, err)
		}
		pair.valid[i] = &m
		return nil
	}
	err0 := read(0, 0)
	var err1 error
	if pair.valid[0] != nil {
		err1 = read(1, int64(pair.valid[0].PageSize))
	} else {
		// The page size is unknown, and so is the place of the second meta page. Try every possible size.
		at1 := int64(minPageSize)
		for ; at1 <= maxPageSize; at1 *= 2 {
			if err1 = read(1, at1); err1 == nil || errors.Is(err1, errPageSize) {
				break // bbolt looks no further
			}
		}
		if pair.valid[1] != nil && int64(pair.valid[1].PageSize) != at1 {
			return metaPair{}, errors.New("meta page 1: not at its place")
		}
	}
	if err := errors.Join(err0, err1); errors.Is(err, errPageSize) {
		return metaPair{}, err
	}
	if pair.valid[0] != nil && pair.valid[1] != nil && pair.valid[0].PageSize != pair.valid[1].PageSize {
		return pair, errors.New("its meta pages differ in page size")
	}
	if pair.valid[0] == nil && pair.valid[1] == nil {
		return pair, err0
	}
	pair.err = errors.Join(err0, err1)
	return pair, nil
}

package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
)

// This file reads bbolt's file format with nothing but bounds-checked reads.
// bbolt itself trusts what it maps: a page number out of range is a fault, a
// cycle a stack overflow and a wrong count an allocation without bound, and
// the last two end the process whatever it recovers from. So every file is
// walked here once before bbolt sees it.
//
// The layout, all of it in the byte order of the machine:
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

	// noFreelist stands for a list that was not written.
	noFreelist = math.MaxUint64

	minPageSize, maxPageSize = 1 << 10, 16 << 20

	// maxTreeDepth is far beyond what a tree of the largest file needs.
	maxTreeDepth = 64
)

var order = binary.NativeEndian

// metaInfo is one of the two pages that a bbolt file begins with.
type metaInfo struct {
	PageSize  uint64
	Root      uint64
	Freelist  uint64
	HighWater uint64 // the first page that was never used
	TxID      uint64
	raw       [metaSize]byte
}

func parseMeta(page []byte) (metaInfo, error) {
	if len(page) < pageHeaderSize+metaSize {
		return metaInfo{}, errors.New("too short")
	}
	b := page[pageHeaderSize:][:metaSize]
	switch {
	case order.Uint32(b) != metaMagic:
		return metaInfo{}, errors.New("not a bbolt file")
	case order.Uint32(b[4:]) != metaVersion:
		return metaInfo{}, fmt.Errorf("bbolt format %d, want %d", order.Uint32(b[4:]), metaVersion)
	case order.Uint64(b[56:]) != metaChecksum(b):
		return metaInfo{}, errors.New("wrong checksum")
	}
	m := metaInfo{
		PageSize:  uint64(order.Uint32(b[8:])),
		Root:      order.Uint64(b[16:]),
		Freelist:  order.Uint64(b[32:]),
		HighWater: order.Uint64(b[40:]),
		TxID:      order.Uint64(b[48:]),
		raw:       [metaSize]byte(b),
	}
	if m.PageSize < minPageSize || m.PageSize > maxPageSize || m.PageSize&(m.PageSize-1) != 0 {
		return metaInfo{}, fmt.Errorf("%w of %d", errPageSize, m.PageSize)
	}
	return m, nil
}

// errPageSize is of a meta page that is as it was written, but for this: bbolt would
// go by it.
var errPageSize = errors.New("impossible page size")

func metaChecksum(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b[:56])
	return h.Sum64()
}

// page returns m as the meta page with this id and transaction.
func (m metaInfo) page(id, txid uint64) []byte {
	p := make([]byte, m.PageSize)
	order.PutUint64(p, id)
	order.PutUint16(p[8:], metaPage)
	b := p[pageHeaderSize:][:metaSize]
	copy(b, m.raw[:])
	order.PutUint64(b[48:], txid)
	order.PutUint64(b[56:], metaChecksum(b))
	return p
}

// image is a bbolt file that nobody writes to.
type image struct {
	r    io.ReaderAt
	size int64
	meta metaInfo // the one that bbolt will use
	// older is the other one, where it is valid, and damaged says what is wrong
	// with it where not. bbolt then goes on with what is left, which may be the
	// state before the last commit.
	older   *metaInfo
	damaged error
}

// openImage reads both meta pages and refuses a file of a size that cannot be
// right.
func openImage(r io.ReaderAt, size int64) (*image, error) {
	if size == 0 {
		return nil, errors.New("it is empty")
	}
	metas, err := readMetas(r, size)
	if err != nil {
		return nil, err
	}
	img := &image{r: r, size: size, meta: *metas.newest(), damaged: metas.err}
	for _, m := range metas.valid {
		if m != metas.newest() {
			img.older = m
		}
	}
	return img, img.checkSize()
}

func (img *image) checkSize() error {
	m := img.meta
	if uint64(img.size)%m.PageSize != 0 {
		return fmt.Errorf("its size %d is no multiple of the page size %d", img.size, m.PageSize)
	}
	pages := uint64(img.size) / m.PageSize
	if m.HighWater > pages {
		return fmt.Errorf("it was truncated: %d pages of %d are there", pages, m.HighWater)
	}
	if m.Root < 2 || m.Root >= m.HighWater {
		return fmt.Errorf("root page %d is outside of the %d pages in use", m.Root, m.HighWater)
	}
	if m.Freelist != noFreelist && (m.Freelist < 2 || m.Freelist >= m.HighWater) {
		return fmt.Errorf("freelist page %d is outside of the %d pages in use", m.Freelist, m.HighWater)
	}
	return nil
}

type metaPair struct {
	valid [2]*metaInfo
	err   error // of the one that is not
}

// newest chooses as bbolt does: the second page only by a higher transaction.
func (p metaPair) newest() *metaInfo {
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
		// The page size is not known: the second meta page says it, where it is.
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

// check walks every page that the newest meta page leads to. With free it also
// checks the list of free pages, which matters to a writer only.
func (img *image) check(free bool) error { return img.walk(free, nil) }

// walk is check, and shows what it comes by.
func (img *image) walk(free bool, visit func(path []string, key, value []byte)) error {
	w := walker{img: img, seen: make(map[uint64]bool), visit: visit}
	if err := w.tree(img.meta.Root, 0, keyRange{}); err != nil {
		return err
	}
	if !free || img.meta.Freelist == noFreelist {
		return nil
	}
	return w.freelist()
}

// walker remembers the pages it has been to: a tree has one way to each.
type walker struct {
	img  *image
	seen map[uint64]bool
	// visit is called for each pair in the bucket at path, and with a nil key for
	// the bucket itself; nil: nobody wants to know. Both are valid during the call.
	visit func(path []string, key, value []byte)
	path  []string
}

func (w *walker) show(key, value []byte) {
	if w.visit != nil {
		w.visit(w.path, key, value)
	}
}

// keyRange is what the keys of a page have to lie in: least ≤ key < limit. Nil
// is no bound.
type keyRange struct{ least, limit []byte }

// load reads page id with its overflow and checks its header.
func (w *walker) load(id uint64) ([]byte, error) {
	m := w.img.meta
	if id < 2 || id >= m.HighWater {
		return nil, fmt.Errorf("page %d is outside of the %d pages in use", id, m.HighWater)
	}
	at := int64(id * m.PageSize)
	var header [pageHeaderSize]byte
	if _, err := w.img.r.ReadAt(header[:], at); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	if self := order.Uint64(header[:]); self != id {
		return nil, fmt.Errorf("page %d says that it is page %d", id, self)
	}
	pages := uint64(order.Uint32(header[12:])) + 1
	if pages > m.HighWater-id {
		return nil, fmt.Errorf("page %d overflows into %d pages, beyond the %d in use", id, pages, m.HighWater)
	}
	for i := id; i < id+pages; i++ {
		if w.seen[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		w.seen[i] = true
	}
	p := make([]byte, pages*m.PageSize)
	if _, err := w.img.r.ReadAt(p, at); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return p, nil
}

func (w *walker) tree(id uint64, depth int, keys keyRange) error {
	if depth > maxTreeDepth {
		return fmt.Errorf("page %d is nested too deeply", id)
	}
	p, err := w.load(id)
	if err != nil {
		return err
	}
	switch flags := order.Uint16(p[8:]); flags {
	case branchPage:
		return w.branch(id, p, depth, keys)
	case leafPage:
		return w.leaf(id, p, depth, keys, true)
	default:
		return fmt.Errorf("page %d has flags %#x: neither branch nor leaf", id, flags)
	}
}

// slice returns n bytes of p at offset bytes after the element at, which may
// not reach into the header or the elements.
func slice(p []byte, at, offset, n, data int) ([]byte, bool) {
	start := at + offset
	if start < data || n < 0 || start > len(p) || n > len(p)-start {
		return nil, false
	}
	return p[start : start+n], true
}

// ordered tells whether key i may follow the one before it on its page. There are no
// empty ones: bbolt ends in a panic where it is to change a page that has one.
func (r keyRange) ordered(i int, last, key []byte) bool {
	if len(key) == 0 {
		return false
	}
	if r.limit != nil && bytes.Compare(key, r.limit) >= 0 {
		return false
	}
	if i == 0 {
		return r.least == nil || bytes.Compare(r.least, key) <= 0
	}
	return bytes.Compare(last, key) < 0
}

func (w *walker) branch(id uint64, p []byte, depth int, keys keyRange) error {
	count := int(order.Uint16(p[10:]))
	data := pageHeaderSize + count*branchElementSize
	if count == 0 || data > len(p) {
		return fmt.Errorf("branch page %d has %d elements", id, count)
	}
	type child struct {
		key []byte
		id  uint64
	}
	children := make([]child, count)
	for i := range children {
		at := pageHeaderSize + i*branchElementSize
		key, ok := slice(p, at, int(order.Uint32(p[at:])), int(order.Uint32(p[at+4:])), data)
		if !ok {
			return fmt.Errorf("branch page %d: key %d is outside of it", id, i)
		}
		if i > 0 && !keys.ordered(i, children[i-1].key, key) || i == 0 && !keys.ordered(0, nil, key) {
			return fmt.Errorf("branch page %d: key %d is out of order", id, i)
		}
		children[i] = child{key, order.Uint64(p[at+8:])}
	}
	for i, c := range children {
		below := keyRange{least: c.key, limit: keys.limit}
		if i+1 < len(children) {
			below.limit = children[i+1].key
		}
		if err := w.tree(c.id, depth+1, below); err != nil {
			return err
		}
	}
	return nil
}

// leaf checks a leaf page, or with buckets false the inline page of a small
// bucket, which can hold no further bucket.
func (w *walker) leaf(id uint64, p []byte, depth int, keys keyRange, buckets bool) error {
	count := int(order.Uint16(p[10:]))
	data := pageHeaderSize + count*leafElementSize
	if data > len(p) {
		return fmt.Errorf("leaf page %d has %d elements", id, count)
	}
	var last []byte
	room := len(p) - data
	for i := range count {
		at := pageHeaderSize + i*leafElementSize
		flags := order.Uint32(p[at:])
		offset, keySize, valueSize := int(order.Uint32(p[at+4:])), int(order.Uint32(p[at+8:])), int(order.Uint32(p[at+12:]))
		key, ok1 := slice(p, at, offset, keySize, data)
		value, ok2 := slice(p, at, offset+keySize, valueSize, data)
		if !ok1 || !ok2 {
			return fmt.Errorf("leaf page %d: element %d is outside of it", id, i)
		}
		// Elements that share their bytes would be millions of bytes each, in a file of few.
		if room -= len(key) + len(value); room < 0 {
			return fmt.Errorf("leaf page %d: its elements are more than it holds", id)
		}
		if !keys.ordered(i, last, key) {
			return fmt.Errorf("leaf page %d: key %d is out of order", id, i)
		}
		last = key
		switch {
		case flags == 0:
			w.show(key, value)
		case flags == bucketEntry && buckets:
			if err := w.bucket(id, key, value, depth); err != nil {
				return err
			}
		default:
			return fmt.Errorf("leaf page %d: element %d has flags %#x", id, i, flags)
		}
	}
	return nil
}

func (w *walker) bucket(id uint64, key, value []byte, depth int) error {
	if len(value) < bucketHeaderSize {
		return fmt.Errorf("leaf page %d: a bucket of %d bytes", id, len(value))
	}
	w.path = append(w.path, string(key))
	defer func() { w.path = w.path[:len(w.path)-1] }()
	w.show(nil, nil)
	if root := order.Uint64(value); root != 0 {
		return w.tree(root, depth+1, keyRange{})
	}
	inline := value[bucketHeaderSize:]
	if len(inline) < pageHeaderSize || order.Uint16(inline[8:]) != leafPage {
		return fmt.Errorf("leaf page %d: an inline bucket that is no leaf", id)
	}
	// It has no number. One that it had bbolt would set free when it writes the bucket anew, whosever page that is.
	if self := order.Uint64(inline); self != 0 {
		return fmt.Errorf("leaf page %d: an inline bucket that says that it is page %d", id, self)
	}
	return w.leaf(id, inline, depth+1, keyRange{}, false)
}

// freelist checks that no page is both in use and free to be overwritten. A
// page that is neither is lost space, which harms nobody.
func (w *walker) freelist() error {
	id := w.img.meta.Freelist
	p, err := w.load(id)
	if err != nil {
		return fmt.Errorf("freelist: %w", err)
	}
	if flags := order.Uint16(p[8:]); flags != freelistPage {
		return fmt.Errorf("freelist page %d has flags %#x", id, flags)
	}
	ids := p[pageHeaderSize:]
	count := uint64(order.Uint16(p[10:]))
	if count == 0xFFFF {
		count, ids = order.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids))/8 {
		return fmt.Errorf("freelist page %d has %d entries", id, count)
	}
	var last uint64
	for i := range count {
		free := order.Uint64(ids[i*8:])
		if free < 2 || free >= w.img.meta.HighWater {
			return fmt.Errorf("freelist page %d: free page %d is outside of the %d pages in use", id, free, w.img.meta.HighWater)
		}
		if free <= last {
			return fmt.Errorf("freelist page %d: free page %d is out of order", id, free)
		}
		if w.seen[free] {
			return fmt.Errorf("page %d is in use and free", free)
		}
		last = free
	}
	return nil
}

// at returns the state as of transaction txid, which is that of one of the meta
// pages. Whatever a later transaction has left in the file is outside of it:
// bbolt never overwrites a page that the transaction before can reach.
func (img *image) at(txid uint64) (*image, error) {
	m := img.meta
	if m.TxID != txid {
		if img.older == nil || img.older.TxID != txid {
			return nil, fmt.Errorf("transaction %d, the last one that was acknowledged, is not in it", txid)
		}
		m = *img.older
	}
	then := &image{r: img.r, size: img.size, meta: m}
	if err := then.checkSize(); err != nil {
		return nil, err
	}
	return then, then.check(true)
}

// writeTo writes a file of this state, with both meta pages leading to it.
func (img *image) writeTo(dst io.Writer) error { return img.writeAs(dst, img.meta.TxID) }

// writeAs is writeTo under another number of the transaction.
func (img *image) writeAs(dst io.Writer, txid uint64) error {
	m := img.meta
	for i := range uint64(2) {
		id := txid
		if i != txid%2 {
			id--
		}
		if _, err := dst.Write(m.page(i, id)); err != nil {
			return err
		}
	}
	body := io.NewSectionReader(img.r, int64(2*m.PageSize), int64((m.HighWater-2)*m.PageSize))
	_, err := io.Copy(dst, body)
	return err
}

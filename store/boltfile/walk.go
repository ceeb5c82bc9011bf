package boltfile

import (
	"bytes"
	"fmt"
	"os"
)

// Check walks every page that is reachable from the newest meta page. If free is set, it also checks the list of
// free pages, which matters only to a writer.
func (img *Image) Check(free bool) error {
	f, ok := img.r.(*os.File)
	if !ok {
		return img.Walk(free, nil)
	}
	mapped := mapFile(f, img.size)
	if mapped == nil {
		return img.Walk(free, nil)
	}
	defer unmapFile(mapped)
	// A page that cannot be read is a fault.
	return guard(f.Name(), func() error { return img.walk(walker{mapped: mapped}, free) })
}

// Walk does the same as Check and calls visit for each bucket and pair.
func (img *Image) Walk(free bool, visit func(path []string, key, value []byte)) error {
	return img.walk(walker{visit: visit}, free)
}

// WalkBuckets is Walk for the top-level buckets that within accepts. It does not check the pages of others, nor the
// list of free pages.
func (img *Image) WalkBuckets(within func(bucket string) bool, visit func(path []string, key, value []byte)) error {
	return img.walk(walker{visit: visit, within: within}, false)
}

func (img *Image) walk(w walker, free bool) error {
	w.img, w.seen = img, make([]uint64, img.Meta.HighWater/64+1)
	if err := w.tree(img.Meta.Root, 0, keyRange{}); err != nil {
		return err
	}
	if !free || img.Meta.Freelist == noFreelist {
		return nil
	}
	return w.freelist()
}

// walker remembers the pages that it has visited: in a tree, only one path leads to each page.
type walker struct {
	img  *Image
	seen []uint64 // a bit for each page in use
	// mapped is the file in memory, nil if its pages are read instead.
	mapped []byte
	// visit is called for each pair in the bucket at path, and with a nil key for the bucket itself. It may be nil.
	// The key and value are valid only during the call.
	visit func(path []string, key, value []byte)
	path  []string
	// within selects the top-level buckets whose pages are read; nil selects all.
	within func(bucket string) bool
}

func (w *walker) saw(id uint64) bool { return w.seen[id/64]&(1<<(id%64)) != 0 }

func (w *walker) show(key, value []byte) {
	if w.visit != nil {
		w.visit(w.path, key, value)
	}
}

// keyRange bounds the keys of a page: least ≤ key < limit. A nil bound does not apply.
type keyRange struct{ least, limit []byte }

// load reads page id with its overflow and checks its header.
func (w *walker) load(id uint64) ([]byte, error) {
	m := w.img.Meta
	if id < 2 || id >= m.HighWater {
		return nil, fmt.Errorf("page %d is outside of the %d pages in use", id, m.HighWater)
	}
	at := int64(id * m.PageSize)
	header, err := w.read(at, pageHeaderSize)
	if err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	if self := order.Uint64(header); self != id {
		return nil, fmt.Errorf("page %d says that it is page %d", id, self)
	}
	pages := uint64(order.Uint32(header[12:])) + 1
	if pages > m.HighWater-id {
		return nil, fmt.Errorf("page %d overflows into %d pages, beyond the %d in use", id, pages, m.HighWater)
	}
	for i := id; i < id+pages; i++ {
		if w.saw(i) {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		w.seen[i/64] |= 1 << (i % 64)
	}
	p, err := w.read(at, pages*m.PageSize)
	if err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return p, nil
}

// read returns n bytes of the file, which are within its size.
func (w *walker) read(at int64, n uint64) ([]byte, error) {
	if w.mapped != nil {
		return w.mapped[at:][:n], nil
	}
	p := make([]byte, n)
	_, err := w.img.r.ReadAt(p, at)
	return p, err
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

// slice returns the n bytes of p at at+offset, where at is the position of an element. It fails if they reach
// outside of p or begin before data, the end of the element array.
func slice(p []byte, at, offset, n, data int) ([]byte, bool) {
	start := at + offset
	if start < data || n < 0 || start > len(p) || n > len(p)-start {
		return nil, false
	}
	return p[start : start+n], true
}

// ordered reports whether key i may follow the key before it on its page. Empty keys are invalid: bbolt panics when
// it changes a page that has one.
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

// leaf checks a leaf page or, if buckets is false, the inline page of a small bucket, which cannot contain further
// buckets.
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
		offset := int(order.Uint32(p[at+4:]))
		keySize, valueSize := int(order.Uint32(p[at+8:])), int(order.Uint32(p[at+12:]))
		key, ok1 := slice(p, at, offset, keySize, data)
		value, ok2 := slice(p, at, offset+keySize, valueSize, data)
		if !ok1 || !ok2 {
			return fmt.Errorf("leaf page %d: element %d is outside of it", id, i)
		}
		// Elements that overlap could add up to millions of bytes each in a small file.
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
	if len(w.path) == 1 && w.within != nil && !w.within(w.path[0]) {
		return nil
	}
	if root := order.Uint64(value); root != 0 {
		return w.tree(root, depth+1, keyRange{})
	}
	inline := value[bucketHeaderSize:]
	if len(inline) < pageHeaderSize || order.Uint16(inline[8:]) != leafPage {
		return fmt.Errorf("leaf page %d: an inline bucket that is no leaf", id)
	}
	// An inline page has no page id. If it had one, bbolt would free the page with that id when it rewrites the
	// bucket.
	if self := order.Uint64(inline); self != 0 {
		return fmt.Errorf("leaf page %d: an inline bucket that says that it is page %d", id, self)
	}
	return w.leaf(id, inline, depth+1, keyRange{}, false)
}

// freelist checks that no page is both in use and free to be overwritten. A page that is neither is lost space,
// which does no harm.
func (w *walker) freelist() error {
	id := w.img.Meta.Freelist
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
		if free < 2 || free >= w.img.Meta.HighWater {
			return fmt.Errorf("freelist page %d: free page %d is outside of the %d pages in use",
				id, free, w.img.Meta.HighWater)
		}
		if free <= last {
			return fmt.Errorf("freelist page %d: free page %d is out of order", id, free)
		}
		if w.saw(free) {
			return fmt.Errorf("page %d is in use and free", free)
		}
		last = free
	}
	return nil
}

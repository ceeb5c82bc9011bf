package boltfile

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/core-tools/hsu-master/store/statefile"
)

// Image is a bbolt file that no process writes to.
type Image struct {
	r    io.ReaderAt
	size int64
	Meta Meta // the one that bbolt uses
	// older is the other meta page if it is valid; otherwise Damaged is its fault. In that case bbolt uses the
	// remaining page, which may be the state before the last commit.
	older   *Meta
	Damaged error
}

// OpenImage reads both meta pages and rejects a file whose size cannot be right.
func OpenImage(r io.ReaderAt, size int64) (*Image, error) {
	if size == 0 {
		return nil, errors.New("it is empty")
	}
	metas, err := readMetas(r, size)
	if err != nil {
		return nil, err
	}
	img := &Image{r: r, size: size, Meta: *metas.newest(), Damaged: metas.err}
	for _, m := range metas.valid {
		if m != metas.newest() {
			img.older = m
		}
	}
	return img, img.checkSize()
}

func (img *Image) checkSize() error {
	m := img.Meta
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

// At returns the state as of transaction txid, which must be that of one of the two meta pages. Pages written by a
// later transaction are not part of it: bbolt never overwrites a page that is reachable from the previous
// transaction.
func (img *Image) At(txid uint64) (*Image, error) {
	m := img.Meta
	if m.TxID != txid {
		if img.older == nil || img.older.TxID != txid {
			return nil, fmt.Errorf("transaction %d, the last one that was acknowledged, is not in it", txid)
		}
		m = *img.older
	}
	then := &Image{r: img.r, size: img.size, Meta: m}
	if err := then.checkSize(); err != nil {
		return nil, err
	}
	return then, then.Check(true)
}

// CopyTo writes to dst a database file with this state, to which both meta pages lead.
func (img *Image) CopyTo(dst io.Writer) error { return img.CopyAs(dst, img.Meta.TxID) }

// CopyAs is like CopyTo but writes txid as the transaction number.
func (img *Image) CopyAs(dst io.Writer, txid uint64) error {
	m := img.Meta
	for i := range uint64(2) {
		if _, err := dst.Write(m.page(i, metaTx(i, txid))); err != nil {
			return err
		}
	}
	body := io.NewSectionReader(img.r, int64(2*m.PageSize), int64((m.HighWater-2)*m.PageSize))
	_, err := io.Copy(dst, body)
	return err
}

// Load opens a database file only to read its pages, without bbolt. The caller must close the returned file.
func Load(path string) (*os.File, *Image, error) {
	f, size, err := statefile.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open the state: %w", err)
	}
	img, err := OpenImage(f, size)
	if err != nil {
		return nil, nil, errors.Join(&statefile.DamagedError{Path: path, Err: err}, f.Close())
	}
	return f, img, nil
}

// maxTx is more than a thousand commits a second reach in 30,000 years.
const maxTx = 1 << 50

// LastTx returns the transaction number of a damaged database, 0 if it cannot be read.
func LastTx(path string) uint64 {
	f, size, err := statefile.Open(path)
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	metas, err := readMetas(f, size)
	if err != nil || metas.newest() == nil {
		return 0
	}
	// A number beyond any plausible value does not belong to this state.
	if txid := metas.newest().TxID; txid < maxTx {
		return txid
	}
	return 0
}

// Renumber sets the number of the last transaction of the database in f, so that it counts as newer than the
// database that it replaces.
func Renumber(f *os.File, txid uint64) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	img, err := OpenImage(f, fi.Size())
	if err != nil {
		return err
	}
	for i := range uint64(2) {
		if _, err := f.WriteAt(img.Meta.page(i, metaTx(i, txid)), int64(i*img.Meta.PageSize)); err != nil {
			return err
		}
	}
	return nil
}

// metaTx returns the transaction number of meta page i in a file whose last transaction is txid.
func metaTx(i, txid uint64) uint64 {
	if i != txid%2 {
		return txid - 1
	}
	return txid
}

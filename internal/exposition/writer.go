package exposition

import (
	"io"
	"sync"
)

// Writer writes samples to another writer. It is for one goroutine.
type Writer struct {
	out    io.Writer
	text   []byte // not yet written
	labels []byte // of the histogram that is being written
	family *Family
	begun  bool // the head of the family is written
	err    error
}

const (
	pieceSize = 64 << 10 // the text is written in pieces of about this size
	spareSize = 4 << 10  // room for the sample that ends a piece
	maxPooled = 2 * pieceSize
)

// writers holds the writers of past texts with their buffers.
var writers = sync.Pool{New: func() any { return &Writer{text: make([]byte, 0, pieceSize+spareSize)} }}

// NewWriter returns a writer of one text to out. Its Close must be called.
func NewWriter(out io.Writer) *Writer {
	w := writers.Get().(*Writer) //nolint:forcetypeassert // what New makes
	w.out = out
	return w
}

// Close writes the rest of the text, and returns the error of the first write that has failed. The writer must not be
// used any more.
func (w *Writer) Close() error {
	w.flush()
	err := w.err
	if cap(w.text)+cap(w.labels) <= maxPooled {
		*w = Writer{text: w.text[:0], labels: w.labels[:0]}
		writers.Put(w)
	}
	return err
}

// Begin begins a family, to which the samples belong that follow. A family without samples is not written.
func (w *Writer) Begin(f *Family) { w.family, w.begun = f, false }

// Sample writes the value of a gauge or a counter, with a label value for each label of the family.
func (w *Writer) Sample(value float64, labels ...string) {
	if !w.open() {
		return
	}
	w.text = append(w.text, w.family.name...)
	if len(labels) > 0 {
		w.text = append(w.text, '{')
		w.text = w.family.appendLabels(w.text, labels)
		w.text = append(w.text, '}')
	}
	w.value(value)
}

// Histogram writes a histogram. counts has the number of observations in each bucket, not cumulated, and sum is the sum
// of their values.
func (w *Writer) Histogram(counts []uint64, sum float64, labels ...string) {
	if !w.open() {
		return
	}
	w.labels = w.family.appendLabels(w.labels[:0], labels)
	separator := ""
	if len(labels) > 0 {
		separator = ","
	}
	var total uint64
	for i, bound := range w.family.bounds {
		total += counts[i]
		w.series("_bucket{", w.labels, separator, `le="`, bound, `"}`)
		w.value(float64(total))
	}
	before, after := "", ""
	if len(labels) > 0 {
		before, after = "{", "}"
	}
	w.series("_sum"+before, w.labels, after)
	w.value(sum)
	w.series("_count"+before, w.labels, after)
	w.value(float64(total))
}

// series appends the name of a series of a histogram: its suffix, the labels, and what follows.
func (w *Writer) series(suffix string, labels []byte, rest ...string) {
	w.text = append(append(append(w.text, w.family.name...), suffix...), labels...)
	for _, s := range rest {
		w.text = append(w.text, s...)
	}
}

// open makes the head of the family precede its first sample. It reports whether the text is still wanted.
func (w *Writer) open() bool {
	if !w.begun {
		w.text, w.begun = append(w.text, w.family.head...), true
	}
	return w.err == nil
}

// value ends a line with a value, and writes a piece if there is one.
func (w *Writer) value(value float64) {
	w.text = append(appendFloat(append(w.text, ' '), value), '\n')
	if len(w.text) >= pieceSize {
		w.flush()
	}
}

func (w *Writer) flush() {
	if w.err == nil && len(w.text) > 0 {
		_, w.err = w.out.Write(w.text)
	}
	w.text = w.text[:0]
}

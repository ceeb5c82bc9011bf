package tail

import "bytes"

// MaxLine is the size at which a line is cut: the rest of it follows as another one.
const MaxLine = 64 << 10

// lines splits text into lines. It keeps an incomplete one until its end comes.
type lines struct {
	rest []byte
	cut  bool // the rest continues a line that was cut
	raw  int  // bytes since the last line, with the NULs
}

// line is a line with its newline, or, if more is set, a piece of one that is longer than MaxLine.
type line struct {
	text []byte // valid until the next one
	more bool   // the line goes on
	cont bool   // it continues the line before
	raw  int    // its bytes with the NULs among them; 0 if its newline was added
	left int    // bytes behind it in the text that was fed
}

// feed passes each line that ends in the text to visit. It changes the text: it drops NULs, which are no text.
func (l *lines) feed(text []byte, visit func(line)) {
	nuls := bytes.IndexByte(text, 0) >= 0
	for len(text) > 0 {
		end := bytes.IndexByte(text, '\n') + 1
		piece := text[:end]
		if end == 0 {
			piece = text
		}
		if room := MaxLine - len(l.rest); len(piece) > room {
			piece, end = text[:room], 0
		}
		text = text[len(piece):]
		l.raw += len(piece)
		if nuls {
			piece = withoutNULs(piece)
		}
		if len(l.rest) > 0 || end == 0 {
			l.rest = append(l.rest, piece...)
			piece = l.rest
		}
		switch {
		case end > 0:
			visit(line{text: piece, cont: l.cut, raw: l.raw, left: len(text)})
			l.cut = false
			l.clear()
		case len(l.rest) == MaxLine:
			visit(line{text: piece, more: true, cont: l.cut, raw: l.raw, left: len(text)})
			l.cut = true
			l.clear()
		}
	}
}

// withoutNULs returns the text without NULs, in the same memory.
func withoutNULs(text []byte) []byte {
	kept := text[:0]
	for _, b := range text {
		if b != 0 {
			kept = append(kept, b)
		}
	}
	return kept
}

// clear empties the rest. Most lines are short, so the memory of a long one is not kept.
func (l *lines) clear() {
	if cap(l.rest) > 4<<10 {
		l.rest = nil
	}
	l.rest, l.raw = l.rest[:0], 0
}

// end passes the incomplete line to visit, if there is one.
func (l *lines) end(visit func(line)) {
	if len(l.rest) > 0 || l.cut {
		visit(line{text: append(l.rest, '\n'), cont: l.cut})
	}
	l.rest, l.cut, l.raw = nil, false, 0
}

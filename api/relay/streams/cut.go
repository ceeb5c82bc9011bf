package streams

import "slices"

// cutStreams tracks the streams of a client that the relay ended before the client did. The client may have sent
// more on them before it read that. These frames must be ignored (RFC 9113, section 5.1), while other frames on
// closed streams are faults.
//
// The ids of the latest streams are kept. Every older stream counts as cut, so that no frame in flight is treated
// as a fault, however many streams are cut. The windows of the cut streams bound the bytes that may still arrive.
type cutStreams struct {
	trailers int // bytes of trailers that may still arrive on a stream that was cut
	most     int // bytes that a client can have sent before it reads that its streams were cut

	ids   [64]uint32
	at    int    // index of the oldest id
	older uint32 // the greatest id that has been dropped
	left  int    // bytes that may still arrive
}

// Add records that a stream with a window of that size was cut.
func (s *cutStreams) Add(id uint32, window int) {
	s.older = max(s.older, s.ids[s.at])
	s.ids[s.at] = id
	s.at = (s.at + 1) % len(s.ids)
	s.left = min(s.left+window+s.trailers, s.most)
}

// End records that the client has ended a closed stream too: nothing more arrives on it.
func (s *cutStreams) End(id uint32) {
	if i := slices.Index(s.ids[:], id); i >= 0 {
		s.ids[i] = 0
	}
}

// Take reports whether n bytes may arrive on a closed stream because it was cut, and deducts them from left.
func (s *cutStreams) Take(id uint32, n int) bool {
	if n > s.left || id > s.older && !slices.Contains(s.ids[:], id) {
		return false
	}
	s.left -= n
	return true
}

// ClientIDs are the ids of the streams that a client has opened. The connection's reader owns newest; the connection's
// lock guards the other fields, and only the reader writes served.
type ClientIDs struct {
	Newest uint32 // the newest stream that the client has opened, served or not
	Served uint32 // the newest stream that is served
	Cut    cutStreams
}

// NewClientIDs returns the ids of a client that has opened no stream. trailers bounds the trailers of a stream, and
// most the bytes that the client can have sent before it reads that its streams were cut.
func NewClientIDs(trailers, most int) ClientIDs {
	return ClientIDs{Cut: cutStreams{trailers: trailers, most: most}}
}

// Opened reports whether the client has ever opened the stream with that id. The reader calls it.
func (s *ClientIDs) Opened(id uint32) bool { return id&1 == 1 && id <= s.Newest }

// Ignored reports whether frames on the stream with that id must be ignored: the client opened it before it had read
// the last GOAWAY (RFC 9113, section 6.8). The reader calls it.
func (s *ClientIDs) Ignored(id uint32) bool { return s.Opened(id) && id > s.Served }

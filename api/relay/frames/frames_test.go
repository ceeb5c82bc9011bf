package frames

import (
	"bytes"
	"io"
	"testing"

	"golang.org/x/net/http2"
)

// FuzzNextFrame compares the frame reader with x/net's.
func FuzzNextFrame(f *testing.F) {
	f.Add([]byte{0, 0, 3, 0, 1, 0, 0, 0, 1, 'a', 'b', 'c', 0, 0, 0, 4, 1, 0, 0, 0, 0})
	f.Add([]byte{0, 0, 4, 0, 9, 0, 0, 0, 1, 2, 'b', 0, 0})
	f.Add([]byte{0, 0, 8, 6, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, b []byte) {
		framer := http2.NewFramer(io.Discard, bytes.NewReader(b))
		framer.SetMaxReadFrameSize(MaxFrame)
		framer.AllowIllegalReads = true
		for {
			frame, rest, ok, err := Next(b)
			theirs, theirErr := framer.ReadFrame()
			if err != nil || !ok {
				if theirErr == nil {
					t.Fatalf("x/net reads %v where we have %v, %v", theirs, ok, err)
				}
				return
			}
			if theirErr != nil {
				return // x/net also checks the contents of frames
			}
			h := theirs.Header()
			if h.Type != frame.Kind || h.Flags != frame.Flags || h.StreamID != frame.ID ||
				int(h.Length) != len(frame.Payload) {
				t.Fatalf("%v, want %v", frame, h)
			}
			if data, ok := theirs.(*http2.DataFrame); ok {
				if err := Unpad(&frame); err != nil || !bytes.Equal(frame.Payload, data.Data()) {
					t.Fatalf("%q, %v; want %q", frame.Payload, err, data.Data())
				}
			}
			b = rest
		}
	})
}

package relay

import (
	"errors"
	"io"
	"net"
	"slices"
	"testing"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/headers"
)

// Frames arrive whole and in order, however the bytes are split, and no buffer is held while none are left.
func TestInputIsSplitIntoFrames(t *testing.T) {
	var stream []byte
	for i := range uint32(50) {
		stream = appendWindowUpdate(stream, i, 1)
		stream = appendFrameHeader(stream, int(i), http2.FrameData, 0, i)
		stream = append(stream, make([]byte, i)...)
	}
	for _, size := range []int{1, 7, 100, len(stream)} {
		near, far := net.Pipe()
		go func() {
			for part := range slices.Chunk(stream, size) {
				_, _ = far.Write(part)
			}
			_ = far.Close()
		}()
		in := newInput(maxHeaderList)
		frames := 0
		err := in.read(&socket{nc: near}, func(n int) error {
			in.add(n)
			defer in.compact()
			for {
				f, ok, err := in.next()
				if err != nil || !ok {
					return err
				}
				if want := uint32(frames / 2); f.id != want {
					t.Errorf("frame %d is on stream %d, want %d", frames, f.id, want)
				}
				frames++
			}
		})
		if frames != 100 || !errors.Is(err, io.EOF) {
			t.Errorf("in parts of %d bytes: %d frames, %v", size, frames, err)
		}
		if in.release(); in.buf != nil || in.held() != 0 || in.head() {
			t.Errorf("in parts of %d bytes: a buffer is left", size)
		}
	}
}

// A header block is complete with its last frame, and nothing may stand between its frames.
func TestInputAssemblesHeaderBlocks(t *testing.T) {
	var list headers.List
	list.Add("name", "value")
	e := headers.NewEncoder(tableSize)
	encoded := e.Start(nil)
	for f := range list.All {
		encoded = e.Field(encoded, f)
	}
	in := newInput(maxHeaderList)
	in.greeted = true
	first := frame{kind: http2.FrameHeaders, flags: http2.FlagHeadersEndStream, id: 5, payload: encoded[:3]}
	if id, _, err := in.headers(first); id != 0 || err != nil || !in.head() || in.held() < 3 {
		t.Fatalf("after the first frame: stream %d, %v, %d bytes held", id, err, in.held())
	}
	if in.check(&frame{kind: http2.FrameData, id: 5}) == nil {
		t.Error("DATA may interrupt a header block")
	}
	last := frame{kind: http2.FrameContinuation, flags: http2.FlagContinuationEndHeaders, id: 5, payload: encoded[3:]}
	if err := in.check(&last); err != nil {
		t.Error(err)
	}
	if id, end, err := in.continuation(last); id != 5 || !end || err != nil || in.head() || in.held() != 0 {
		t.Errorf("after the last frame: stream %d, end %v, %v, %d bytes held", id, end, err, in.held())
	}
	if value, _ := in.list.Get("name"); value != "value" {
		t.Errorf("decoded: %q", value)
	}
}

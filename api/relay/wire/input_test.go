package wire

import (
	"errors"
	"io"
	"net"
	"slices"
	"testing"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/headers"
)

// Frames arrive whole and in order, however the bytes are split, and no buffer is held while none are left.
func TestInputIsSplitIntoFrames(t *testing.T) {
	var stream []byte
	for i := range uint32(50) {
		stream = frames.AppendWindowUpdate(stream, i, 1)
		stream = frames.AppendHeader(stream, int(i), http2.FrameData, 0, i)
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
		in := NewInput(16 << 10)
		frames := 0
		err := in.Read(&Socket{Conn: near}, func() error {
			defer in.Compact()
			for {
				f, ok, err := in.Next()
				if err != nil || !ok {
					return err
				}
				if want := uint32(frames / 2); f.ID != want {
					t.Errorf("frame %d is on stream %d, want %d", frames, f.ID, want)
				}
				frames++
			}
		})
		if frames != 100 || !errors.Is(err, io.EOF) {
			t.Errorf("in parts of %d bytes: %d frames, %v", size, frames, err)
		}
		if in.release(); in.buf != nil || in.Kept() != 0 || in.Head() {
			t.Errorf("in parts of %d bytes: a buffer is left", size)
		}
	}
}

// A header block is complete with its last frame, and nothing may stand between its frames.
func TestInputAssemblesHeaderBlocks(t *testing.T) {
	var list headers.List
	list.Add("name", "value")
	e := headers.NewEncoder(frames.TableSize)
	encoded := e.Start(nil)
	for f := range list.All {
		encoded = e.Field(encoded, f)
	}
	in := NewInput(16 << 10)
	in.greeted = true
	first := frames.Frame{Kind: http2.FrameHeaders, Flags: http2.FlagHeadersEndStream, ID: 5, Payload: encoded[:3]}
	if id, _, err := in.Headers(first); id != 0 || err != nil || !in.Head() || in.Kept() < 3 {
		t.Fatalf("after the first frame: stream %d, %v, %d bytes held", id, err, in.Kept())
	}
	if in.Check(&frames.Frame{Kind: http2.FrameData, ID: 5}) == nil {
		t.Error("DATA may interrupt a header block")
	}
	last := frames.Frame{
		Kind: http2.FrameContinuation, Flags: http2.FlagContinuationEndHeaders, ID: 5, Payload: encoded[3:],
	}
	if err := in.Check(&last); err != nil {
		t.Error(err)
	}
	if id, end, err := in.Continuation(last); id != 5 || !end || err != nil || in.Head() || in.Kept() != 0 {
		t.Errorf("after the last frame: stream %d, end %v, %v, %d bytes held", id, end, err, in.Kept())
	}
	if value, _ := in.List.Get("name"); value != "value" {
		t.Errorf("decoded: %q", value)
	}
}

// A head is a frame in part other than DATA, and the buffer counts as held while a frame is in part.
func TestInputOfHeads(t *testing.T) {
	in := NewInput(16 << 10)
	read := func(p []byte) {
		in.add(copy(in.space(), p))
		for ok := true; ok; {
			_, ok, _ = in.Next()
		}
		in.Compact()
	}
	frame := frames.AppendWindowUpdate(nil, 0, 1)
	for _, part := range [][]byte{frame[:3], frame[3:10]} {
		if read(part); !in.Head() || in.Kept() != readBuffer {
			t.Errorf("a frame in part: head %v, %d bytes are held", in.Head(), in.Kept())
		}
	}
	if read(frame[10:]); in.Head() || in.Kept() != 0 {
		t.Error("a whole frame counts as a head in part")
	}
	if read(frames.AppendHeader(nil, 100, http2.FrameData, 0, 1)); in.Head() || in.Kept() != readBuffer {
		t.Error("DATA counts as a head")
	}
}

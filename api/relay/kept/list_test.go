package kept

import (
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/api/relay/peers"
)

// A list is counted for its client exactly as long as it is kept, and shares no memory with the original.
func TestKeptList(t *testing.T) {
	var table peers.Table
	m := table.Join(0, peers.ID{})
	var kept List
	for _, size := range []int{1, smallChunk, largeChunk + 1} {
		var l headers.List
		l.Add("name", strings.Repeat("x", size))
		kept.Keep(m, peers.Trailers, &l) // replaces the one before
		if n := m.KeptOf(peers.Trailers); !kept.Kept() || n != len(l.Bytes()) {
			t.Errorf("%d bytes are counted, want %d", n, len(l.Bytes()))
		}
		l.Reset()
		l.Add("name", "y")
		again := headers.Of(kept.Bytes())
		if value, _ := again.Get("name"); value != strings.Repeat("x", size) {
			t.Errorf("kept: %.20q", value)
		}
	}
	for range 2 {
		if kept.Drop(); kept.Kept() || kept.Bytes() != nil || m.Kept() != 0 {
			t.Errorf("after drop %d bytes are counted", m.Kept())
		}
	}
}

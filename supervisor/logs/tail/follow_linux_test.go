package tail

import (
	"testing"

	"github.com/core-tools/hsu-master/supervisor/logs"
)

// Processes write as fast as they can while their log is rotated a hundred times. The follower gets each line once,
// whichever way the rotated lines are freed.
func TestFollowOverRotations(t *testing.T) {
	for name, collapse := range map[string]bool{"collapse": true, "punch": false} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			s := h.source("web-0", "")
			h.serve(logs.Policy{MaxSize: 64 << 10, Keep: 1 << 20, Compress: true}, collapse, s)
			f := h.follow(Query{Lines: -1}, s)
			stops := map[string]func() int{}
			for _, writer := range []string{"a", "b"} {
				stops[writer] = startWriter(t, s.Path, writer)
			}
			seen := newSequence(t)
			for rotations := 0; rotations < 100; {
				select {
				case <-h.rotated:
					rotations++
				case c := <-f.chunks:
					seen.add(c)
				}
			}
			for writer, stop := range stops {
				written := stop()
				for seen.last[writer] < written {
					seen.add(f.next())
				}
				t.Logf("%d lines of writer %s", written, writer)
			}
		})
	}
}

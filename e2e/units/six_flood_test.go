//go:build e2e && linux

package units

import (
	"fmt"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// A log that grows beyond max_size is rotated without losing a line, also over kill -9 of the master.
func TestFloodedLogIsRotated(t *testing.T) {
	t.Parallel()
	s := newSix(t, "log: {max_size: 256KiB, keep: 3, compress: true}",
		"log: {max_size: 64KiB, keep: 1000, compress: true}")
	s.environ = append(s.environ, "CHATTER_PAUSE=0")
	m := s.start()
	before := s.awaitUp(workersOfSix).Instances()
	rotated := 0
	for range 4 {
		goal := rotated + 3
		harness.WaitFor(t, fmt.Sprintf("%d rotated files", goal), func() error {
			if rotated = len(s.rotatedLogs()); rotated < goal {
				return fmt.Errorf("there are %d", rotated)
			}
			return nil
		})
		m.Kill()
		m = s.start()
	}
	s.awaitUp(workersOfSix).WantInstances(t, before)
	m.Stop()
	if got := s.wantWholeLog(1000); got < rotated {
		t.Errorf("%d rotated files are left, want %d", got, rotated)
	}
	s.WantNothingLeft()
}

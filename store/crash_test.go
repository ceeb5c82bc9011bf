package store

import (
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
)

// TestAcknowledgedSurvivesKill repeatedly kills a process under load, always on the same state. It compares the
// requests that the process sent and those acknowledged to it with the content of the files.
func TestAcknowledgedSurvivesKill(t *testing.T) {
	const rounds = 8
	for name, mode := range map[string]SyncMode{"always": SyncAlways, "interval": SyncInterval} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			chance := rand.New(rand.NewPCG(1, 2))
			var seen [256]int64 // counts each byte of the child's output
			for round := range rounds {
				c := startChild(t, "load", dir, mode)
				// Kill it after a random number of acknowledgements of either kind.
				for n := 1 + chance.IntN(2000); n > 0; {
					b, err := c.out.ReadByte()
					if err != nil {
						t.Fatalf("round %d: the child ended by itself: %v", round, err)
					}
					seen[b]++
					if b == countAcked || b == workerAcked {
						n--
					}
				}
				if err := c.cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				rest, err := io.ReadAll(c.out)
				if err != nil {
					t.Fatal(err)
				}
				for _, b := range rest {
					seen[b]++
				}
				c.kill()

				s := checkFiles(t, dir)
				between(t, fmt.Sprintf("round %d: count", round), seen[countAcked], s.Processed, seen[countSent])
				var incarnation int64
				if len(s.Workers) > 0 {
					incarnation = int64(s.Workers[0].Incarnation) - int64(fullWorker("").Incarnation)
				}
				between(t, fmt.Sprintf("round %d: record", round), seen[workerAcked], incarnation, seen[workerSent])
				if s.Meta.CleanShutdown {
					t.Errorf("round %d: the crash looks like a clean shutdown", round)
				}
				// Records that were sent and not acknowledged may be present: the next child starts from the state
				// that it finds, and so does the model.
				seen[workerAcked], seen[workerSent] = incarnation, incarnation
			}
			t.Logf("%d requests sent, %d acknowledged, %d records written",
				seen[countSent], seen[countAcked], seen[workerAcked])
		})
	}
}

func between(t *testing.T, what string, least, got, most int64) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%s is %d, want %d (acknowledged) to %d (sent)", what, got, least, most)
	}
}

//go:build inside

package inside

import (
	"os"
	"regexp"
	"testing"
)

// TestKillThatREADMEShowsLeavesTheWorkers runs the commands of README unchanged.
func TestKillThatREADMEShowsLeavesTheWorkers(t *testing.T) {
	readme, err := os.ReadFile("/share/README.md")
	if err != nil {
		t.Fatal(err)
	}
	kills := regexp.MustCompile(`(?m)^sudo (systemctl kill .*)$`).FindAllSubmatch(readme, -1)
	if len(kills) == 0 {
		t.Fatal("README shows no systemctl kill")
	}
	first := install(t)
	last := first
	for _, kill := range kills {
		command(t, "sh", "-c", string(kill[1])) // without sudo, which the machine lacks
		last = ready(t, last.MasterPID)
		for i, w := range last.Workers {
			if w.PID != first.Workers[i].PID || w.Incarnation != 1 {
				t.Errorf("after %q %s is process %d of incarnation %d, want %d of 1",
					kill[1], w.ID, w.PID, w.Incarnation, first.Workers[i].PID)
			}
		}
	}
}

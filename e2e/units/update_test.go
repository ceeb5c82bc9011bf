//go:build e2e && linux

package units

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// A reload replaces as many workers at once as the unit allows, and no more.
func TestReloadReplacesTwoWorkersAtOnce(t *testing.T) {
	t.Parallel()
	file := func(level string) string {
		return fmt.Sprintf(`
units:
  a:
    kind: managed
    command: [sleep, "1000"]
    replicas: 5
    environment: {LEVEL: %s, NOTES: "${NOTES}"}
    health: {type: exec, command: [sh, -c, 'test "$$LEVEL" = info || test -e "$$NOTES/go-on"'], interval: 100ms}
    update: {max_unavailable: 2}
`, level)
	}
	s := newSite(t, map[string]string{"hsu.yaml": file("info")})
	s.environ = []string{"NOTES=" + s.Record}
	m := s.start()
	s.awaitUp(5)
	s.write("hsu.yaml", file("debug"))
	m.Signal(syscall.SIGHUP)
	replaced := func(want, running int) func() error {
		return func() error {
			d, err := s.TryDump()
			if err != nil {
				return err
			}
			begun, done := 0, 0
			for _, w := range d.Workers {
				switch {
				case w.Incarnation == 2 && up(w):
					done++
				case w.Incarnation == 2 || !up(w):
					begun++
				}
			}
			if begun > 2 {
				t.Errorf("%d workers are being replaced at the same time: %+v", begun, d.Workers)
			}
			if begun != want || done != running {
				return fmt.Errorf("%d are being replaced, and %d are", begun, done)
			}
			return nil
		}
	}
	harness.WaitFor(t, "two workers are being replaced", replaced(2, 0))
	if err := os.WriteFile(filepath.Join(s.Record, "go-on"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "all are replaced", replaced(0, 5))
	m.Stop()
	s.WantNothingLeft()
}

//go:build e2e && linux

package world

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// A master of a container: process 1 with units from a file. Its managed programs leave orphans, which it reaps. It
// stops them all at SIGTERM. If the container is killed, the next one on the same state starts them all.
func TestMasterThatIsProcess1RunsTheUnitsOfAFile(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	path := filepath.Join(h.Dir, "hsu.yaml")
	// Each process in brackets loses its parent at once.
	text := fmt.Sprintf(`
defaults: {start: {settle: 20ms}, restart: {backoff: {initial: 1ms}}}
units:
  business: {command: [%q], replicas: 2}
  untidy:
    kind: managed
    command: [sh, -c, "while :; do for i in 1 2 3 4 5 6 7 8 9; do (: &); (sleep 0.05 &); done; sleep 0.2; done"]
  plain: {kind: managed, command: [sleep, "1000000"], health: {type: exec, command: ["true"], interval: 100ms}}
`, harness.Programs.Unit)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Flags = []string{"--config", path}
	h.Begin = asFirst(t)
	const count = 4
	up := func(w harness.Worker) bool { return w.Status == "running" && w.PID > 0 }

	start := func() *harness.Master {
		m := h.Start()
		wantInside(h, h.AwaitWorkers(count, "run", up))
		return m
	}
	reaps := func(m *harness.Master) {
		t.Helper()
		h.KillWorker(pidOutside(h, h.AwaitWorkers(count, "run", up).Worker(t, "untidy-0").PID))
		h.AwaitWorkers(count, "run, one of them again", func(w harness.Worker) bool {
			return up(w) && (w.ID != "untidy-0" || w.Restarts > 0)
		})
		harness.WaitFor(t, "no orphan stays a zombie", func() error {
			if _, zombies := children(m.PID); len(zombies) > 0 {
				return fmt.Errorf("there are %d", len(zombies))
			}
			return nil
		})
		h.Ask("of an integrated unit")
	}
	m := start()
	reaps(m)
	m.Stop() // by SIGTERM
	h.WantNothingLeft()

	m = start()
	first := h.Dump().Instances()
	m.Kill() // the kernel kills the whole namespace
	harness.WaitFor(t, "the kernel has ended the namespace", func() error {
		if left := h.Processes(); len(left) > 0 {
			return fmt.Errorf("there are %v", left)
		}
		return nil
	})
	m = start()
	for id, instance := range h.Dump().Instances() {
		if instance.Token == first[id].Token {
			t.Errorf("%s is %+v again", id, instance)
		}
	}
	reaps(m)
	m.Stop()
	h.WantNothingLeft()
}

//go:build e2e && linux

package upgrade

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// An upgrade does not keep new connections waiting for a command of on_event that hangs.
func TestUpgradeDoesNotWaitForEventCommands(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "hsu.yaml")
	config := fmt.Sprintf("on_event: [{run: [sleep, \"1000\"], timeout: 10m}]\nunits: {worker: {command: [%q]}}\n",
		harness.Programs.Worker)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, "--config", file)
	m := h.Start()
	h.AwaitRunning(1)
	paused, err := time.ParseDuration(upgrade(h).Paused)
	if err != nil {
		t.Fatal(err)
	}
	if longest := 4 * time.Second; paused > longest { // a master that stops waits for the commands for 5 s
		t.Errorf("callers waited %s, want at most %s", paused, longest)
	}
	m.Stop()
	h.WantNothingLeft()
}

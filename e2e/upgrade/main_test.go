//go:build e2e && linux

package upgrade

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// newHost returns a host that runs a copy of the old master, which a test may replace.
func newHost(t *testing.T, flags ...string) *harness.Host {
	t.Helper()
	h := harness.NewHost(t, flags...)
	h.InstallMaster(harness.MasterOf(t, harness.OldVersion))
	return h
}

// installScript replaces the host's master by a script. In it, $real is the path of a master of the new version.
func installScript(h *harness.Host, script string) {
	h.T.Helper()
	path := filepath.Join(h.Dir, "script")
	text := fmt.Sprintf("#!/bin/sh\nreal='%s'\n%s\n", harness.MasterOf(h.T, harness.NewVersion), script)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.T.Fatal(err)
	}
	h.InstallMaster(path)
}

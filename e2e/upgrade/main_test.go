//go:build e2e && linux

package upgrade

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// Versions of the masters of these tests.
const (
	oldVersion = "v1.0.0"
	newVersion = "v2.0.0"
)

var built sync.Map // version → func() error

// program returns the path of a master of that version.
func program(t *testing.T, version string) string {
	t.Helper()
	path := filepath.Join(harness.Programs.Dir, "hsu-master-"+version)
	once, _ := built.LoadOrStore(version, sync.OnceValue(func() error { return harness.BuildMaster(path, version) }))
	if err := once.(func() error)(); err != nil {
		t.Fatal(err)
	}
	return path
}

// newHost returns a host that runs a copy of the old master, which a test may replace.
func newHost(t *testing.T, flags ...string) *harness.Host {
	t.Helper()
	h := harness.NewHost(t, flags...)
	h.Program = filepath.Join(h.Dir, "hsu-master")
	install(h, program(t, oldVersion))
	return h
}

// install replaces the host's master, as package managers do.
func install(h *harness.Host, from string) {
	h.T.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = harness.WriteProgram(h.Program+".new", content)
	}
	if err == nil {
		err = os.Rename(h.Program+".new", h.Program)
	}
	if err != nil {
		h.T.Fatal(err)
	}
}

// installScript replaces the host's master by a script. In it, $real is the path of a master of the new version.
func installScript(h *harness.Host, script string) {
	h.T.Helper()
	path := filepath.Join(h.Dir, "script")
	text := fmt.Sprintf("#!/bin/sh\nreal='%s'\n%s\n", program(h.T, newVersion), script)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.T.Fatal(err)
	}
	install(h, path)
}

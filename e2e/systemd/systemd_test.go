//go:build e2e_systemd

// Package systemd tests the service under a real systemd. The tests themselves are in package inside: they are
// compiled, and run in a temporary machine.
package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestServiceUnderARealSystemd(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	share := t.TempDir()
	build := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = root
		// The machine has another libc, or no suitable one.
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, output)
		}
	}
	// As the Makefile does, which has compiled most of it already.
	const tags = "grpcnotrace,urfave_cli_no_docs"
	build("build", "-trimpath", "-tags", tags, "-o", share, "./cmd/hsu-master", "./cmd/hsu-worker")
	build("build", "-trimpath", "-tags", tags+",crashpoints",
		"-o", filepath.Join(share, "hsu-master-crashpoints"), "./cmd/hsu-master")
	build("build", "-trimpath", "-tags", tags, "-ldflags=-X main.release=v2.0.0",
		"-o", filepath.Join(share, "hsu-master-new"), "./cmd/hsu-master")
	build("test", "-c", "-trimpath", "-tags", tags+",inside", "-o", filepath.Join(share, "inside.test"),
		"./e2e/systemd/inside")
	for _, document := range []string{"README.md", "docs/CONFIGURATION.md"} {
		text, err := os.ReadFile(filepath.Join(root, document))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(share, filepath.Base(document)), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "scripts", "systemd-container"),
		"/share/inside.test", "-test.v", "-test.timeout=15m")
	cmd.Env = append(os.Environ(), "SHARE="+share)
	output, err := cmd.CombinedOutput()
	t.Logf("in the machine:\n%s", output)
	if err != nil {
		t.Fatalf("in the machine: %v", err)
	}
}

//go:build e2e && linux

package world

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// demonstration returns the commands that README shows for a crash.
func demonstration(t *testing.T) string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(harness.Repository, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)<!-- make run prints[^\n]*\n```sh\n(.*?)```\n").FindSubmatch(readme)
	if found == nil {
		t.Fatal("README shows no crash")
	}
	return string(found[1])
}

func TestMakeRunPrintsWhatREADMEShows(t *testing.T) {
	t.Parallel()
	plan := exec.CommandContext(t.Context(), "make", "--no-print-directory", "--dry-run", "--old-file=build", "run")
	plan.Dir = harness.Repository
	lines, err := plan.Output()
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^sed .*$`).Find(lines)
	shown := exec.CommandContext(t.Context(), "bash", "-c", string(line))
	shown.Dir = harness.Repository
	got, err := shown.Output()
	if want := demonstration(t); err != nil || strings.TrimSpace(string(got)) != strings.TrimSpace(want) {
		t.Errorf("make run prints (%v)\n%s\nREADME shows\n%s", err, got, want)
	}
}

// The commands are pasted into an interactive shell, as a reader does, while a master runs.
func TestDemonstrationOfACrashWorksInEveryShell(t *testing.T) {
	t.Parallel()
	commands := demonstration(t)
	for _, shell := range []string{"bash", "zsh"} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(shell); err != nil {
				harness.SkipOutsideCI(t, "%v", err)
			}
			h := harness.NewHost(t, harness.Workers(2)...)
			m := h.Start()
			before := h.AwaitRunning(2)
			// In this directory, README's names lead to the programs under test.
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
				t.Fatal(err)
			}
			for name, target := range map[string]string{
				"hsu-master": harness.Programs.Release, "hsu-worker": harness.Programs.Worker,
			} {
				if err := os.Symlink(target, filepath.Join(dir, "bin", name)); err != nil {
					t.Fatal(err)
				}
			}
			pasted := strings.ReplaceAll(commands, ".run", h.State)
			ctx, cancel := context.WithTimeout(t.Context(), 4*harness.Patience) // for thirty commands
			defer cancel()
			cmd := exec.CommandContext(ctx, shell, "-i")
			cmd.Dir, cmd.Stdin = dir, strings.NewReader(pasted+"wait\nexit\n")
			cmd.Env = append(harness.CleanEnviron(), "HOME="+dir, fmt.Sprintf("HSU_MASTER_PORT=%d", h.Port))
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Run(); err != nil {
				t.Errorf("%s: %v", shell, err)
			}
			m.Wait()
			for _, want := range []string{"no master is running", "adopted", "running, 20 requests processed"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is not in what was printed:\n%s", want, &out)
				}
			}
			for _, w := range before.Workers {
				if n := strings.Count(out.String(), fmt.Sprint(" ", w.PID, " ")); n < 3 {
					t.Errorf("%s, process %d, is shown %d times, want before, between and after:\n%s",
						w.ID, w.PID, n, &out)
				}
			}
			if strings.Contains(out.String(), "not found") {
				t.Errorf("%s took something for a command:\n%s", shell, &out)
			}
			h.WantNothingLeft()
		})
	}
}

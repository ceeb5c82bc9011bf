//go:build e2e && linux

package units

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// A master in another program runs units of three kinds, survives kill -9, and answers the operator's commands.
func TestEmbeddedMasterRunsThreeKinds(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	program := filepath.Join(h.Dir, "embedding")
	if err := harness.Build(harness.Repository, program, "", "./examples/embedding"); err != nil {
		t.Fatal(err)
	}
	stranger := h.StartDecoy(0)
	if err := os.MkdirAll(h.State, 0o700); err != nil {
		t.Fatal(err)
	}
	pid := []byte(strconv.Itoa(stranger.PID) + "\n")
	if err := os.WriteFile(filepath.Join(h.State, "cache.pid"), pid, 0o600); err != nil {
		t.Fatal(err)
	}
	pids := func() (list []int) {
		running := func(w harness.Worker) bool { return w.Status == "running" }
		for _, w := range h.AwaitWorkers(4, "run", running).Workers {
			list = append(list, w.PID)
		}
		slices.Sort(list)
		return list
	}
	start := func() *harness.Master {
		m := h.Exec(program, nil, h.State, harness.Programs.Worker)
		harness.WaitFor(t, "status exits with 0", func() error {
			if r := h.CLI("status"); r.Code != 0 {
				return fmt.Errorf("it exits with %d: %s%s", r.Code, r.Stdout, r.Stderr)
			}
			return nil
		})
		return m
	}
	m := start()
	before := pids()
	if !slices.Contains(before, stranger.PID) {
		t.Errorf("the processes are %v, want %d of the stranger among them", before, stranger.PID)
	}
	list := h.CLI("worker", "list").Stdout
	for _, id := range []string{"search-0", "search-1", "pages-0", "cache-0"} {
		if !strings.Contains(list, id) {
			t.Errorf("worker list does not show %s:\n%s", id, list)
		}
	}
	m.Kill()
	m = start()
	if after := pids(); !slices.Equal(before, after) {
		t.Errorf("after kill -9 the processes are %v, want %v", after, before)
	}
	m.Stop()
	h.WantNothingLeft()
	stranger.WantUntouched(t)
}

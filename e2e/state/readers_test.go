//go:build e2e && linux

package state

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// A reader changes nothing while a master runs, nor after it has crashed.
func TestReadersLeaveNoTrace(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(1)...)
	m := h.Start()
	h.AwaitRunning(1)
	m.Kill()
	before := filesOf(h)
	for _, command := range [][]string{{"state", "dump"}, {"state", "dump", "--json"}, {"worker", "list"}} {
		if r := h.CLI(command...); r.Code != 0 {
			t.Errorf("%q: exit code %d: %s", command, r.Code, r.Stderr)
		}
	}
	for _, command := range []string{"status", "ping"} { // commands about the master
		if r := h.CLI(command); r.Code != 3 {
			t.Errorf("%s: exit code %d, want 3: %s", command, r.Code, r.Stderr)
		}
	}
	if diff := cmp.Diff(before, filesOf(h)); diff != "" {
		t.Errorf("readers changed the state folder (-before +after):\n%s", diff)
	}
	m = h.Start()
	h.AwaitRunning(1)
	m.Stop()
}

// Only the master's own user can read its files, and no value of its environment is stored in them.
func TestStateIsPrivateAndHoldsNoSecret(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-correct-horse"
	h := harness.NewHost(t, harness.Workers(1, "--log-level=debug")...)
	m := h.Launch(harness.Programs.Master, []string{
		"DATABASE_PASSWORD=" + secret, "HSU_MASTER_LOG_LEVEL=debug", "CREDENTIALS_DIRECTORY=/run/credentials/" + secret,
	})
	m.AwaitServing()
	w := h.AwaitRunning(1).Workers[0]
	h.Ask("a request")

	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", w.PID))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		name, _, _ := strings.Cut(string(entry), "=")
		names[name] = true
	}
	if !names["DATABASE_PASSWORD"] || names["HSU_MASTER_LOG_LEVEL"] || names["CREDENTIALS_DIRECTORY"] {
		t.Errorf("the worker's environment has %v, want the master's without what is the master's alone", names)
	}

	var shown []string
	for _, command := range [][]string{{"state", "dump"}, {"state", "dump", "--json"}, {"status"}, {"worker", "list"}} {
		shown = append(shown, h.CLI(command...).Stdout)
	}
	m.Kill() // it would replace files while they are listed, such as those of a backup
	shown = append(shown, m.Log())
	err = filepath.WalkDir(h.State, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			shown = append(shown, string(content))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(shown, func(s string) bool { return strings.Contains(s, secret) }) {
		t.Errorf("a value of the environment is in a dump, a log or the state")
	}
	m = h.Start()
	h.AwaitRunning(1)
	m.Stop()
}

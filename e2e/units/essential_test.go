//go:build e2e && linux

package units

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// leaving notes its start, waits for a file and exits with a code.
const leaving = `#!/bin/sh
echo start >>"$NOTES/$HSU_WORKER_ID"
until test -e "$NOTES/leave"; do sleep 0.01; done
exit "$1"
`

// A master ends with its essential worker, and its exit code is that of the work, as of the command of a container.
func TestMasterEndsWithItsEssentialWorker(t *testing.T) {
	for name, c := range map[string]struct {
		restart string // the policy
		code    int    // of the worker
		exit    int    // of the master
		starts  int    // under the first master
		message string
	}{
		"done":            {"{policy: never}", 0, 0, 1, "essential worker ended, master stopping"},
		"done in its way": {"{policy: on-failure, success_codes: [7]}", 7, 0, 1, "master stopped"},
		"failed":          {"{policy: never}", 3, 1, 1, "error: essential worker job-0 failed: exited with code 3\n"},
		"failed too often": {
			"{policy: on-failure, budget: {restarts: 1, within: 1h}, backoff: {initial: 1ms}}", 3, 1, 2,
			"error: essential worker job-0 failed: restart budget 1/1h used up: exited with code 3\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, map[string]string{
				"leaving": leaving,
				"hsu.yaml": fmt.Sprintf(`
defaults: {kind: managed}
units:
  job: {command: [./leaving, "%d"], environment: {NOTES: "${NOTES}"}, essential: true, restart: %s}
  beside: {command: [sleep, "1000"], replicas: 2}
`, c.code, c.restart),
			})
			s.environ = []string{"NOTES=" + s.Record}
			m := s.start()
			s.awaitUp(3)
			if err := os.WriteFile(filepath.Join(s.Record, "leave"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			m.WantExit(c.exit)
			if !strings.Contains(m.Log(), c.message) {
				t.Errorf("the master does not say %q:\n%s", c.message, m.Log())
			}
			if n := s.starts("job-0"); n != c.starts {
				t.Errorf("%d starts, want %d", n, c.starts)
			}
			s.WantNothingLeft()

			// The next master starts it once, and ends again.
			m = s.Launch(s.Program, s.environ)
			m.WantExit(c.exit)
			if n := s.starts("job-0"); n != c.starts+1 {
				t.Errorf("%d starts under both masters, want %d", n, c.starts+1)
			}
			if !strings.Contains(m.Log(), "so it is started once") {
				t.Errorf("the second master does not say why it starts the worker:\n%s", m.Log())
			}
			s.WantNothingLeft()
		})
	}
}

// An intended end of an essential worker does not end the master.
func TestWantedStopOfAnEssentialWorker(t *testing.T) {
	t.Parallel()
	file := func(level string, replicas int) string {
		return fmt.Sprintf("units:\n  job: {kind: managed, command: [sleep, \"1000\"], essential: true, replicas: %d, "+
			"environment: {LEVEL: %s}, restart: {policy: never}}\n", replicas, level)
	}
	s := newSite(t, map[string]string{"hsu.yaml": file("info", 2)})
	m := s.start()
	s.awaitUp(2)
	for what, change := range map[string]func() harness.Result{
		"replaced":    func() harness.Result { s.write("hsu.yaml", file("debug", 2)); return s.CLI("reload") },
		"scaled down": func() harness.Result { return s.CLI("worker", "scale", "job=0") },
	} {
		if r := change(); r.Code != 0 {
			t.Errorf("%s: %+v", what, r)
		}
	}
	if !m.Running() {
		t.Errorf("the master has ended:\n%s", m.Log())
	}
	m.Stop()
	s.WantNothingLeft()
}

//go:build e2e && linux

package upgrade

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

func logged(m *harness.Master, message string) error {
	if !strings.Contains(m.Log(), `"msg":"`+message+`"`) {
		return errors.New("not logged: " + message)
	}
	return nil
}

// A new program that does not pass its check changes nothing.
func TestBrokenProgramIsRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t, harness.Workers(2)...)
	m := h.Start()
	want := h.AwaitRunning(2).Instances()
	calls := h.StartCallers(8, harness.Once)
	calls.AwaitMore(10)
	for _, test := range []struct{ name, script, message string }{
		{"exits", "echo broken >&2; exit 7", "exited with code 7: broken"},
		{"is another program", "echo hello", "it does not answer as hsu-master does: hello"},
		{"says nothing", "exit 0", "it does not answer as hsu-master does"},
		{"has a later schema", `HSU_LATER_STEPS=1 exec "$real" "$@"`, "cannot read back"},
		{"refuses the flags", `exec "$real" "$@" --no-such-flag`, "no-such-flag"},
		{"floods", "yes", "not ready in time"},
	} {
		installScript(h, test.script)
		t.Log(test.name)
		wantRefused(h, test.message)
	}
	plain := filepath.Join(h.Dir, "plain")
	if err := os.WriteFile(plain, []byte("no program"), 0o700); err != nil {
		t.Fatal(err)
	}
	wantRefused(h, "exec format error", "--binary", plain)
	wantRefused(h, "no such file", "--binary", plain+".missing")
	calls.AwaitMore(10)
	calls.Stop()
	calls.WantNoFailures()
	h.AwaitRunning(2).WantInstances(t, want)
	if entries, err := os.ReadDir(filepath.Join(h.State, "run")); err != nil || hasCheck(entries) {
		t.Errorf("the copy of the state is left: %v, %v", entries, err)
	}
	m.Stop()
	h.WantNothingLeft()
}

// A check that takes too long is killed with its processes, also those that ignore signals or are in another session.
func TestLongCheckIsKilledWithItsProcesses(t *testing.T) {
	t.Parallel()
	h := newHost(t, harness.Workers(1)...)
	m := h.Start()
	want := h.AwaitRunning(1).Instances()
	pids := filepath.Join(h.Dir, "pids")
	installScript(h, fmt.Sprintf(`exec >>'%s'
trap '' HUP INT TERM
echo $$
sleep 1000 & echo $!
setsid sh -c 'echo $$; exec sleep 1000' 3>&- &
wait`, pids))
	wantRefused(h, "not ready in time")
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	started := strings.Fields(string(text))
	if len(started) != 3 {
		t.Errorf("the check has started %q, want 3 processes", started)
	}
	harness.WaitFor(t, "the processes of the check are gone", func() error {
		for _, pid := range started {
			if _, err := os.Stat("/proc/" + pid); err == nil {
				return errors.New("process " + pid + " lives")
			}
		}
		return nil
	})
	h.AwaitRunning(1).WantInstances(t, want)
	m.Stop()
	h.WantNothingLeft()
}

func hasCheck(entries []os.DirEntry) bool {
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "upgrade") {
			return true
		}
	}
	return false
}

// A program that passes its check and does not serve is replaced by the former one.
func TestFormerProgramServesAgain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ script, message string }{
		"fails at its start": {
			`case $1 in upgrade-check) exec "$real" "$@" ;; esac; exec "$real" "$@" --request-ttl 1ms`,
			"it ended with exit code 2",
		},
		"cannot be executed": {`rm "$0"; exec "$real" "$@"`, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, harness.Workers(2)...)
			m := h.Start()
			want := h.AwaitRunning(2).Instances()
			calls := h.StartCallers(16, harness.Once)
			calls.AwaitMore(10)
			installScript(h, test.script)
			wantRefused(h, test.message)
			calls.AwaitMore(10)
			calls.Stop()
			calls.WantNoFailures()
			h.AwaitRunning(2).WantInstances(t, want)
			h.InstallMaster(harness.MasterOf(t, harness.NewVersion))
			upgrade(h)
			wantVersion(h, harness.NewVersion)
			h.AwaitRunning(2).WantInstances(t, want)
			if got := h.Dump().ProcessedCount; got != calls.Acked.Load() {
				t.Errorf("%d requests are counted, want %d", got, calls.Acked.Load())
			}
			m.Stop()
			h.WantNothingLeft()
		})
	}
}

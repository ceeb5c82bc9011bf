//go:build e2e && linux

package upgrade

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// outcome is the output of "upgrade --json".
type outcome struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Done     bool   `json:"done"`
	CallsCut int    `json:"calls_cut"`
	Paused   string `json:"paused"`
}

// upgrade upgrades the host's master.
func upgrade(h *harness.Host, flags ...string) outcome {
	h.T.Helper()
	r := h.CLI(append([]string{"upgrade", "--json"}, flags...)...)
	var o outcome
	if err := json.Unmarshal([]byte(r.Stdout), &o); r.Code != 0 || err != nil {
		h.T.Fatalf("upgrade: %+v", r)
	}
	return o
}

// wantRefused expects that an upgrade fails with the text in its message, and that the master is the old one.
func wantRefused(h *harness.Host, text string, flags ...string) {
	h.T.Helper()
	r := h.CLI(append([]string{"upgrade"}, flags...)...)
	if r.Code != 1 || !strings.Contains(r.Stderr, text) {
		h.T.Errorf("upgrade: %+v, want exit code 1 and %q", r, text)
	}
	wantVersion(h, harness.OldVersion)
}

func wantVersion(h *harness.Host, version string) {
	h.T.Helper()
	if r := h.CLI("status"); !strings.Contains(r.Stdout+r.Stderr, "master "+version+" is running") {
		h.T.Errorf("status: %+v, want version %s", r, version)
	}
}

// Without a kill, no call fails and no connection is refused.
func TestUpgradesLoseNoCall(t *testing.T) {
	t.Parallel()
	h := newHost(t, harness.Workers(4)...)
	m := h.Start()
	want := h.AwaitRunning(4).Instances()
	calls := h.StartCallers(64, harness.Once)
	versions := []string{harness.OldVersion, harness.NewVersion}
	var longest time.Duration
	for i := range harness.Times(4) {
		calls.AwaitMore(200)
		from, to := versions[i%2], versions[(i+1)%2]
		h.InstallMaster(harness.MasterOf(t, to))
		o := upgrade(h)
		if o.From != from || o.To != to || o.CallsCut != 0 {
			t.Errorf("upgrade %d: %+v, want from %s to %s and no call cut", i, o, from, to)
		}
		paused, err := time.ParseDuration(o.Paused)
		if err != nil {
			t.Error(err)
		}
		longest = max(longest, paused)
		calls.WantNoFailures()
		d := h.AwaitRunning(4)
		d.WantInstances(t, want)
		if d.MasterPID != m.PID {
			t.Errorf("the master's PID is %d, want %d", d.MasterPID, m.PID)
		}
	}
	calls.AwaitMore(200)
	calls.Stop()
	calls.WantNoFailures()
	t.Logf("callers waited %s at most, the longest call took %s", longest, calls.Longest())
	if got := h.Dump().ProcessedCount; got != calls.Acked.Load() {
		t.Errorf("%d requests are counted, want %d", got, calls.Acked.Load())
	}
	m.Stop()
	h.WantNothingLeft()
}

// An upgrade that nobody waits for has passed its check when the command returns, and goes on by itself.
func TestUpgradeWithoutWaiting(t *testing.T) {
	t.Parallel()
	h := newHost(t, harness.Workers(1)...)
	m := h.Start()
	want := h.AwaitRunning(1).Instances()
	installScript(h, "exit 7")
	wantRefused(h, "upgrade refused", "--no-wait")

	// It does not serve, which the command does not wait for.
	installScript(h, `case $1 in upgrade-check) exec "$real" "$@" ;; esac; exec "$real" "$@" --request-ttl 1ms`)
	if r := h.CLI("upgrade", "--no-wait"); r.Code != 0 ||
		!strings.Contains(r.Stdout, "from version "+harness.OldVersion+" to "+harness.NewVersion+", which has passed") {
		t.Errorf("upgrade: %+v", r)
	}
	harness.WaitFor(t, "the former program serves again", func() error {
		recorded := h.CLI("events", "--type", "upgrade-failed").Stdout
		if !strings.Contains(recorded, "it ended with exit code 2") {
			return fmt.Errorf("the history has %s", recorded)
		}
		return nil
	})
	wantVersion(h, harness.OldVersion)

	h.InstallMaster(harness.MasterOf(t, harness.NewVersion))
	r := h.CLI("upgrade", "--no-wait", "--json")
	if strings.Contains(r.Stdout, "calls_cut") || strings.Contains(r.Stdout, "paused") ||
		!strings.Contains(r.Stdout, `"done": false`) {
		t.Errorf("upgrade: %+v", r)
	}
	harness.WaitFor(t, "the new master serves", func() error { return logged(m, "master upgraded") })
	wantVersion(h, harness.NewVersion)
	h.AwaitRunning(1).WantInstances(t, want)
	if o := upgrade(h); !o.Done {
		t.Errorf("an upgrade that was waited for is %+v", o)
	}
	m.Stop()
	h.WantNothingLeft()
}

func TestSignalUpgrades(t *testing.T) {
	t.Parallel()
	h := newHost(t, harness.Workers(1)...)
	m := h.Start()
	want := h.AwaitRunning(1).Instances()
	h.InstallMaster(harness.MasterOf(t, harness.NewVersion))
	m.Signal(syscall.SIGUSR2)
	harness.WaitFor(t, "the new master serves", func() error { return logged(m, "master upgraded") })
	wantVersion(h, harness.NewVersion)
	h.AwaitRunning(1).WantInstances(t, want)
	h.Ask("of the new master")
	m.Stop()
	h.WantNothingLeft()
}

// Signals that arrive while the program is replaced do not kill the master.
func TestSignalsDuringAnUpgradeDoNotKill(t *testing.T) {
	t.Parallel()
	h := newHost(t, harness.Workers(1)...)
	m := h.Start()
	want := h.AwaitRunning(1).Instances()
	signals := []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR2}
	done, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(200 * time.Microsecond):
				_ = syscall.Kill(m.PID, signals[i%2]) // it may have ended
			}
		}
	}()
	harness.WaitFor(t, "the master is replaced a few times", func() error {
		if n := strings.Count(m.Log(), "master upgraded"); n < 3 && m.Running() {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	close(done)
	<-over
	d := h.AwaitRunning(1)
	d.WantInstances(t, want)
	if d.MasterPID != m.PID {
		t.Errorf("the master's PID is %d, want %d", d.MasterPID, m.PID)
	}
	h.Ask("after the signals")
	m.Stop()
	h.WantNothingLeft()
}

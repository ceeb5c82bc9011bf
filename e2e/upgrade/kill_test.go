//go:build e2e && linux

package upgrade

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// After a kill at a random moment of an upgrade, repeated requests are counted once, and the workers are the same.
func TestKilledUpgradeIsRecovered(t *testing.T) {
	t.Parallel()
	h := newHost(t, harness.Workers(2)...)
	m := h.Start()
	want := h.AwaitRunning(2).Instances()
	calls := h.StartCallers(32, harness.WithID)
	for range harness.Times(4) {
		calls.AwaitMore(50)
		m.Signal(syscall.SIGUSR2)
		time.Sleep(rand.N(500 * time.Millisecond)) // the moment is the case
		m.Kill()
		m = h.Start()
		h.AwaitRunning(2).WantInstances(t, want)
	}
	calls.AwaitMore(50)
	calls.Stop()
	calls.WantNoFailures()
	if got := h.Dump().ProcessedCount; got != calls.Acked.Load() {
		t.Errorf("%d requests are counted, want %d", got, calls.Acked.Load())
	}
	m.Stop()
	h.WantNothingLeft()
}

// A check that hangs when its master is killed is ended by the next master, and its copy of the state removed.
func TestKilledMasterLeavesNoCheck(t *testing.T) {
	t.Parallel()
	h := newHost(t, harness.Workers(1)...)
	m := h.Start()
	want := h.AwaitRunning(1).Instances()
	pid := filepath.Join(h.Dir, "pid")
	installScript(h, fmt.Sprintf("echo $$ >'%s'; exec sleep 1000", pid))
	m.Signal(syscall.SIGUSR2)
	harness.WaitFor(t, "the check runs", func() error {
		_, err := os.Stat(pid)
		return err
	})
	m.Kill()
	h.InstallMaster(harness.MasterOf(t, harness.OldVersion))
	port, err := net.Listen("tcp", h.Address()) //nolint:noctx // it does not wait
	if err != nil {
		t.Errorf("the check keeps the port: %v", err)
	} else if err := port.Close(); err != nil {
		t.Error(err)
	}
	m = h.Start()
	h.AwaitRunning(1).WantInstances(t, want)
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "the check is gone", func() error {
		if _, err := os.Stat("/proc/" + strings.TrimSpace(string(text))); err == nil {
			return fmt.Errorf("process %s lives", text)
		}
		return nil
	})
	if entries, err := os.ReadDir(filepath.Join(h.State, "run")); err != nil || hasCheck(entries) {
		t.Errorf("the copy of the state is left: %v, %v", entries, err)
	}
	m.Stop()
	h.WantNothingLeft()
}

// On a full disk, an upgrade is refused and nothing is changed.
func TestFullDiskRefusesTheUpgrade(t *testing.T) {
	t.Parallel()
	h := newHost(t, harness.Workers(1)...)
	faults := t.TempDir()
	m := h.Launch(h.Program, []string{"HSU_FAULT_DIR=" + faults})
	m.AwaitServing()
	want := h.AwaitRunning(1).Instances()
	full := filepath.Join(faults, string(crashpoint.UpgradeCopy))
	if err := os.WriteFile(full, []byte("ENOSPC"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.InstallMaster(harness.MasterOf(t, harness.NewVersion))
	wantRefused(h, "no space left on device")
	h.Ask("after the refusal")
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	upgrade(h)
	wantVersion(h, harness.NewVersion)
	h.AwaitRunning(1).WantInstances(t, want)
	m.Stop()
	h.WantNothingLeft()
}

// The sockets of metrics and of the module registry stay.
func TestOtherListenersStay(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	metrics := harness.Loopback(harness.FreePort(t))
	registry := "unix://" + filepath.Join(h.Dir, "registry.sock")
	h.Flags = append(harness.Workers(1), "--metrics", metrics, "--registry", registry)
	m := h.Start()
	want := h.AwaitRunning(1).Instances()
	sockets := listeners(t, h, metrics)
	h.InstallMaster(harness.MasterOf(t, harness.NewVersion))
	upgrade(h)
	h.AwaitRunning(1).WantInstances(t, want)
	if got := listeners(t, h, metrics); got != sockets {
		t.Errorf("the sockets are %s, before %s", got, sockets)
	}
	m.Stop()
	for _, path := range []string{filepath.Join(h.Dir, "registry.sock"), filepath.Join(h.State, "run", "admin.sock")} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
	h.WantNothingLeft()
}

// listeners describes the sockets of a master, by the inodes of their files, and checks that all of them accept.
func listeners(t *testing.T, h *harness.Host, metrics string) (text string) {
	t.Helper()
	for _, path := range []string{filepath.Join(h.Dir, "registry.sock"), filepath.Join(h.State, "run", "admin.sock")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprint(" ", info.Sys().(*syscall.Stat_t).Ino)
		dial(t, "unix", path)
	}
	dial(t, "tcp", metrics)
	return text
}

// dial expects that a connection is accepted.
func dial(t *testing.T, network, address string) {
	t.Helper()
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), network, address)
	if err != nil {
		t.Error(err)
		return
	}
	_ = conn.Close()
}

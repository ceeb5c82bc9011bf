package master

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/internal/eventtype"
)

// An upgrade that cannot begin yet is answered and logged. The history has failed upgrades only: programs that did not
// pass, not requests that came at the wrong time.
func TestRefusedUpgradeIsNoFailedOne(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(m *Master)
		want    error
	}{
		"during the recovery": {func(*Master) {}, ErrRecovering},
		"during another one":  {func(m *Master) { close(m.ready); m.upgrades.one <- struct{}{} }, ErrUpgrading},
		"while it stops":      {func(m *Master) { close(m.ready); close(m.stopping) }, ErrAborted},
	} {
		t.Run(name, func(t *testing.T) {
			var logged strings.Builder
			o := options(t)
			o.Log = slog.New(slog.NewTextHandler(&logged, nil))
			o.CheckUpgrade = func(context.Context, UpgradeCheck) (UpgradeTarget, error) {
				t.Error("a program is checked")
				return UpgradeTarget{}, errors.New("checked")
			}
			m := mustNew(t, o)
			c.prepare(m)
			if err := m.Upgrade(t.Context(), "", 0, func(UpgradeStep, Upgrade) {
				t.Error("a step is reported")
			}); !errors.Is(err, c.want) {
				t.Errorf("Upgrade = %v, want %v", err, c.want)
			}
			wantFailedUpgrades(t, m, 0)
			if !strings.Contains(logged.String(), `"upgrade not begun" error="`+c.want.Error()) {
				t.Errorf("logged is %q, want the refusal", logged.String())
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A program that does not pass its check is a failed upgrade, and does not keep another one from being tried.
func TestRefusedProgramIsAFailedUpgrade(t *testing.T) {
	o := options(t)
	refusal := errors.New("not good enough")
	o.CheckUpgrade = func(context.Context, UpgradeCheck) (UpgradeTarget, error) { return UpgradeTarget{}, refusal }
	m := mustNew(t, o)
	end := begin(t, m)
	for n := range 2 {
		if err := m.Upgrade(t.Context(), "", 0, func(UpgradeStep, Upgrade) {}); !errors.Is(err, refusal) {
			t.Errorf("Upgrade = %v, want that the program is refused", err)
		}
		wantFailedUpgrades(t, m, n+1)
	}
	end()
}

// wantFailedUpgrades expects this number of failed upgrades in the history.
func wantFailedUpgrades(t *testing.T, m *Master, want int) {
	t.Helper()
	snap, err := m.store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	for _, e := range snap.Events {
		if e.Type == eventtype.UpgradeFailed {
			got++
		}
	}
	if got != want {
		t.Errorf("%d failed upgrades are recorded, want %d: %v", got, want, snap.Events)
	}
}

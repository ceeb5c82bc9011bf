package master

import (
	"context"
	"fmt"
	"strings"

	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Reload makes units the wanted set while the master runs, as [supervisor.Supervisor.Apply] describes. A master that is
// killed meanwhile completes the set if it is started again with the same units.
func (m *Master) Reload(ctx context.Context, units ...unit.Spec) error {
	return m.sup.Apply(ctx, units...)
}

// Reread reads the units anew, with [Options.ReadUnits], and makes them the wanted set. Before that it passes to
// planned what will change now, and which settings take effect at the next start only. With dryRun that is all it
// does. It calls begun when the change is recorded and has begun. The error is a [*supervisor.FaultError] if the units
// cannot be read or have a fault. Without ReadUnits it looks for changed executables, and marks the workers that still
// run the former ones; it does not call begun then.
func (m *Master) Reread(
	ctx context.Context, dryRun bool, planned func(changes []supervisor.Change, later []string), begun func(),
) error {
	err := m.rereadUnits(ctx, dryRun, planned, begun)
	if err != nil && !dryRun {
		m.journal().reloadFailed(ctx, err)
	}
	return err
}

func (m *Master) rereadUnits(
	ctx context.Context, dryRun bool, planned func(changes []supervisor.Change, later []string), begun func(),
) error {
	if m.options.ReadUnits == nil {
		changes, err := m.sup.MarkOutdated(ctx, dryRun)
		if err != nil {
			return err
		}
		planned(changes, nil)
		if !dryRun {
			m.journal().reloaded(ctx, changes)
		}
		return nil
	}
	select {
	case m.reread <- struct{}{}: // before reading, else the older one of two readings could be applied last
		defer func() { <-m.reread }()
	case <-ctx.Done():
		return fmt.Errorf("another reload is under way: %w", ctx.Err())
	}
	units, later, err := m.options.ReadUnits()
	if err != nil {
		return &supervisor.FaultError{Err: err}
	}
	changes, err := m.sup.Changes(ctx, units...)
	if err != nil {
		return err
	}
	planned(changes, later)
	if dryRun {
		return nil
	}
	for _, c := range changes {
		m.log.Info("unit changed", "unit", c.Unit, "action", string(c.Action),
			"workers", strings.Join(c.Workers, " "), "reason", strings.Join(c.Reasons, ", "))
	}
	m.applyRules()
	if err := m.sup.ApplyReporting(ctx, begun, units...); err != nil {
		return err
	}
	m.log.Info("units reloaded", "units", len(units))
	return nil
}

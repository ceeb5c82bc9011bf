package systemd

import (
	"context"
	"fmt"
	"math"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// Scope describes a transient scope (systemd.scope(5)): a unit of processes that systemd has not started.
type Scope struct {
	Name        string // ends in ".scope"
	Description string
	Slice       string
	// Before names a unit that the system stops before the scope when it shuts down.
	Before string
	// PID is the process that StartScope moves into the scope. The scope ends when its last process has.
	PID int
}

// StartScope makes a scope whose cgroup is delegated to its maker, and returns when the process is in it.
func (b *Bus) StartScope(ctx context.Context, s Scope) error {
	properties := []dbus.Property{
		dbus.PropDescription(s.Description),
		dbus.PropSlice(s.Slice),
		dbus.PropBefore(s.Before),
		dbus.PropPids(uint32(s.PID)),
		{Name: "Delegate", Value: godbus.MakeVariant(true)},
		{Name: "TasksMax", Value: godbus.MakeVariant(uint64(math.MaxUint64))}, // infinity
		// Otherwise a scope whose stop timed out would keep its name.
		{Name: "CollectMode", Value: godbus.MakeVariant("inactive-or-failed")},
	}
	err := crashpoint.Do(crashpoint.Scope, func() error {
		done := make(chan string, 1)
		if _, err := b.conn.StartTransientUnitContext(ctx, s.Name, "fail", properties, done); err != nil {
			return err
		}
		select {
		case result := <-done:
			if result != "done" {
				return fmt.Errorf("the job ended with %q", result)
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	return nil
}

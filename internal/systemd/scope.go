package systemd

import (
	"context"
	"fmt"
	"math"
	"os"

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

// ActiveState returns the state of a unit, such as "active" or "deactivating"; "inactive" if there is no such unit.
func (b *Bus) ActiveState(ctx context.Context, unit string) (string, error) {
	property, err := b.conn.GetUnitPropertyContext(ctx, unit, "ActiveState")
	if err != nil {
		return "", fmt.Errorf("ask for the state of %s: %w", unit, err)
	}
	state, _ := property.Value.Value().(string)
	return state, nil
}

// OwnService returns the name of the service whose main process is this one, empty if there is none.
func (b *Bus) OwnService(ctx context.Context) (string, error) {
	pid := uint32(os.Getpid())
	unit, err := b.conn.GetUnitNameByPID(ctx, pid)
	if err != nil {
		return "", fmt.Errorf("ask for the service of this process: %w", err)
	}
	property, err := b.conn.GetServicePropertyContext(ctx, unit, "MainPID")
	if err != nil {
		return "", fmt.Errorf("ask for the main process of %s: %w", unit, err)
	}
	if main, ok := property.Value.Value().(uint32); !ok || main != pid {
		return "", nil
	}
	return unit, nil
}

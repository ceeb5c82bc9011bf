// Package systemd asks the service manager of this host over D-Bus.
package systemd

import (
	"context"
	"fmt"
	"os"

	"github.com/coreos/go-systemd/v22/dbus"
)

// Bus is a connection to the system's service manager. It is safe for concurrent use.
type Bus struct {
	conn *dbus.Conn
}

// Dial connects to the system's service manager: root over the manager's own socket, /run/systemd/private, which needs
// no D-Bus daemon, others over the system bus. ctx bounds the connection's setup and ends its calls.
func Dial(ctx context.Context) (*Bus, error) {
	dial := dbus.NewSystemConnectionContext
	if os.Geteuid() == 0 {
		dial = dbus.NewSystemdConnectionContext
	}
	conn, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to systemd: %w", err)
	}
	return &Bus{conn: conn}, nil
}

// Close ends the connection.
func (b *Bus) Close() { b.conn.Close() }

// MainPID returns the PID of the main process of a service, 0 if it has none.
func (b *Bus) MainPID(ctx context.Context, unit string) (int, error) {
	property, err := b.conn.GetServicePropertyContext(ctx, unit, "MainPID")
	if err != nil {
		return 0, fmt.Errorf("ask for the main process of %s: %w", unit, err)
	}
	pid, ok := property.Value.Value().(uint32)
	if !ok {
		return 0, fmt.Errorf("the main process of %s is %s, not a number", unit, property.Value)
	}
	return int(pid), nil
}

// Restart has the system's service manager restart a unit, and returns when that is done.
func Restart(ctx context.Context, unit string) error {
	bus, err := Dial(ctx)
	if err != nil {
		return err
	}
	defer bus.Close()
	done := make(chan string, 1)
	if _, err := bus.conn.RestartUnitContext(ctx, unit, "replace", done); err != nil {
		return fmt.Errorf("restart %s: %w", unit, err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("restart %s: systemd reports %s", unit, result)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("restart %s: %w", unit, ctx.Err())
	}
}

// State returns the states of a unit: whether it is loaded, and as what.
func (b *Bus) State(ctx context.Context, unit string) (load, active, sub string, err error) {
	for name, value := range map[string]*string{"LoadState": &load, "ActiveState": &active, "SubState": &sub} {
		if *value, err = b.state(ctx, unit, name); err != nil {
			return "", "", "", err
		}
	}
	return load, active, sub, nil
}

// ActiveState returns the state of a unit, such as "active" or "deactivating"; "inactive" if there is no such unit.
func (b *Bus) ActiveState(ctx context.Context, unit string) (string, error) {
	return b.state(ctx, unit, "ActiveState")
}

// state returns the value of a property of a unit that is a name.
func (b *Bus) state(ctx context.Context, unit, property string) (string, error) {
	p, err := b.conn.GetUnitPropertyContext(ctx, unit, property)
	if err != nil {
		return "", fmt.Errorf("ask for the state of %s: %w", unit, err)
	}
	value, _ := p.Value.Value().(string)
	return value, nil
}

// OwnService returns the name of the service whose main process is this one, empty if there is none.
func (b *Bus) OwnService(ctx context.Context) (string, error) {
	pid := os.Getpid()
	unit, err := b.conn.GetUnitNameByPID(ctx, uint32(pid))
	if err != nil {
		return "", fmt.Errorf("ask for the service of this process: %w", err)
	}
	main, err := b.MainPID(ctx, unit)
	if err != nil || main != pid {
		return "", err
	}
	return unit, nil
}

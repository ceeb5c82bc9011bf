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

// State returns the states of a unit: whether it is loaded, and as what.
func (b *Bus) State(ctx context.Context, unit string) (load, active, sub string, err error) {
	for name, value := range map[string]*string{"LoadState": &load, "ActiveState": &active, "SubState": &sub} {
		property, err := b.conn.GetUnitPropertyContext(ctx, unit, name)
		if err != nil {
			return "", "", "", fmt.Errorf("ask for the state of %s: %w", unit, err)
		}
		*value, _ = property.Value.Value().(string)
	}
	return load, active, sub, nil
}

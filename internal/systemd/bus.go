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

package registrywire

import (
	"errors"
	"log/slog"
	"net"

	"github.com/core-tools/hsu-master/internal/fair"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// maxConns bounds the connections of all users; internal/fair divides them, so that no user takes all.
const maxConns = 256

// bounded returns a listener that accepts the connections of known processes, as long as their users may have more.
func bounded(l net.Listener, log *slog.Logger) net.Listener {
	return &fair.Listener{
		Listener: l, Most: func() int { return maxConns }, Identify: identify,
		Refused: func(err error) { log.Debug("module registry connection refused", "error", err) },
	}
}

var errNotLocal = errors.New("it is no connection of a unix socket")

// identify returns the user that has made a connection.
func identify(c net.Conn) (served net.Conn, user any, err error) {
	local, ok := c.(*net.UnixConn)
	if !ok {
		return nil, nil, errNotLocal
	}
	connector, err := process.ConnectorOf(local)
	if err != nil {
		return nil, nil, err
	}
	return conn{Conn: c, connector: connector}, connector.UID, nil
}

// conn is a connection of a known process.
type conn struct {
	net.Conn
	connector *process.Connector
}

package registrywire

import (
	"errors"
	"log/slog"
	"net"
	"sync"

	"github.com/core-tools/hsu-master/internal/fair"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// maxConns bounds the connections of all users; internal/fair divides them, so that no user takes all.
const maxConns = 256

// listener accepts the connections of known processes, as long as their users may have more.
type listener struct {
	net.Listener
	log *slog.Logger

	mu     sync.Mutex
	shares fair.Shares
	open   int
}

// Accept waits for the next connection that is served. Connections that are not served are closed.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		accepted, err := l.admit(c)
		if err == nil {
			return accepted, nil
		}
		l.log.Debug("module registry connection refused", "error", err)
		_ = c.Close()
	}
}

var (
	errNotLocal = errors.New("it is no connection of a unix socket")
	errCrowded  = errors.New("the user has as many connections as allowed")
)

func (l *listener) admit(c net.Conn) (net.Conn, error) {
	local, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errNotLocal
	}
	connector, err := process.ConnectorOf(local)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	share := l.shares.Of(fair.Client{Peer: connector.UID, Conn: c})
	if share.Held().May(maxConns-l.open, maxConns) != fair.Granted {
		return nil, errCrowded
	}
	share.Take()
	l.open++
	return &conn{Conn: c, connector: connector, release: sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		share.Release()
		l.open--
	})}, nil
}

// conn is a served connection.
type conn struct {
	net.Conn
	connector *process.Connector
	release   func()
}

// Close closes the connection and gives its place back.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}

package fair

import (
	"errors"
	"net"
	"sync"
)

// Listener accepts connections as long as their peers may have more, and closes the others.
type Listener struct {
	net.Listener
	// Most returns the number of connections that all peers together may have now.
	Most func() int
	// Identify returns the peer of a connection, as a comparable value, and the connection to serve.
	Identify func(net.Conn) (served net.Conn, peer any, err error)
	// Refused is called with the reason why a connection is closed.
	Refused func(error)

	mu     sync.Mutex
	shares Shares
	open   int
}

var errCrowded = errors.New("the client has as many connections as allowed")

// Accept waits for the next connection that is served, a [*Conn].
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		placed, err := l.admit(c)
		if err == nil {
			return placed, nil
		}
		l.Refused(err)
		_ = c.Close()
	}
}

func (l *Listener) admit(c net.Conn) (*Conn, error) {
	served, peer, err := l.Identify(c)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	share := l.shares.Of(Client{Peer: peer, Conn: c})
	if most := l.Most(); share.Held().May(most-l.open, most) != Granted {
		return nil, errCrowded
	}
	share.Take()
	l.open++
	return &Conn{Conn: served, release: sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		share.Release()
		l.open--
	})}, nil
}

// Conn is a connection that holds a place of a [Listener].
type Conn struct {
	net.Conn
	release func()
}

// NetConn returns the connection that Identify returned.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Close closes the connection and gives its place back.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}

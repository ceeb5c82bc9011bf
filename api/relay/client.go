package relay

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"golang.org/x/net/http2"
)

// serveClient is the reader goroutine of a client's connection.
func (c *conn) serveClient() {
	socket := c.nc
	err := c.greet()
	if err == nil {
		err = c.read()
	}
	c.mu.Lock()
	if c.reason != nil {
		err = c.reason
	}
	c.killLocked(err)
	c.mu.Unlock()
	if !errors.Is(err, io.EOF) && !errors.Is(err, errClosing) && !errors.Is(err, net.ErrClosed) {
		c.relay.opts.Log.Debug("connection of a client ended", "peer", c.nc.RemoteAddr().String(), "err", err)
	}
	c.loseAll(err)
	c.batch.flush()
	close(c.wake)
	_ = socket.Close() // not TLS, which would wait for a client that does not read
}

// greet sets TLS up, and makes the connection one that can be read.
func (c *conn) greet() error {
	nc := c.nc
	if c.relay.opts.TLS != nil {
		if err := c.bound(c.relay.opts.HandshakeTimeout); err != nil {
			return err
		}
		secure := tls.Server(nc, c.relay.opts.TLS)
		if err := secure.Handshake(); err != nil { //nolint:noctx // the deadline bounds it, and Close ends it
			if !errors.Is(err, io.EOF) { // else somebody only looked whether the port is open
				c.relay.trouble("no TLS with a client", c, err)
			}
			return err
		}
		if err := nc.SetDeadline(time.Time{}); err != nil {
			return err
		}
		c.guard.old = secure.ConnectionState().NegotiatedProtocol != http2.NextProtoTLS
		nc = secure
	}
	c.use(nc, nil)
	return nil
}

// hello sends the first SETTINGS. It waits for the client's preface, since what speaks HTTP/1 could not read them.
func (c *conn) hello() {
	if c.begin(&c.batch) {
		c.out.b = appendSettings(c.out.b,
			http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: maxStreams},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList})
		c.out.b = appendWindowUpdate(c.out.b, 0, clientWindow-firstWindow)
		c.said = true
		c.end()
	}
	if c.relay.closing.Load() {
		c.warn(&c.batch)
	}
}

// bound sets a deadline for what comes, unless the connection is over.
func (c *conn) bound(d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return c.reason
	}
	return c.nc.SetDeadline(time.Now().Add(d))
}

func (c *conn) read() error {
	if c.raw != nil {
		return c.readRaw()
	}
	return c.readPlain()
}

// loseAll ends the calls of a connection that is over.
func (c *conn) loseAll(err error) {
	if c.pool != nil {
		c.loseCalls("the server broke the rules of HTTP/2: " + err.Error())
		return
	}
	c.mu.Lock()
	calls := c.calls.all()
	c.mu.Unlock()
	for _, s := range calls {
		k := s.call
		k.mu.Lock()
		if k.client == c && k.clientID == s.id {
			k.clientReset(&c.batch, http2.ErrCodeCancel)
		}
		k.unlock(&c.batch)
	}
}

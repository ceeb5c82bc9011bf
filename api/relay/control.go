package relay

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

func (c *conn) onSettings(f frame) error {
	switch {
	case f.id != 0:
		return connError{http2.ErrCodeProtocol, "SETTINGS on a stream"}
	case f.flags&http2.FlagSettingsAck != 0:
		if len(f.payload) != 0 {
			return connError{http2.ErrCodeFrameSize, "SETTINGS that acknowledge and say something"}
		}
		return nil
	case len(f.payload)%6 != 0:
		return connError{http2.ErrCodeFrameSize, "SETTINGS of a wrong size"}
	}
	// A window is set at all streams, so once a frame and not as often as it stands in there.
	var window http2.Setting
	for p := f.payload; len(p) > 0; p = p[6:] {
		s := http2.Setting{ID: http2.SettingID(binary.BigEndian.Uint16(p)), Val: binary.BigEndian.Uint32(p[2:])}
		if s.ID == http2.SettingInitialWindowSize && s.Valid() == nil {
			window = s
			continue
		}
		if err := c.set(s); err != nil {
			return err
		}
	}
	if window.ID != 0 {
		if err := c.set(window); err != nil {
			return err
		}
	}
	if c.begin(&c.batch) {
		c.out.b = appendSettingsAck(c.out.b)
		if !c.settled {
			c.settled = true
			if c.pool != nil && c.most == unsettledStreams {
				c.most = unboundedStreams
			}
		}
		c.end()
	}
	if c.pool != nil {
		c.batch.pools = append(c.batch.pools, c.pool)
	}
	return nil
}

func (c *conn) set(s http2.Setting) error {
	if err := s.Valid(); err != nil {
		code := http2.ErrCodeProtocol
		if s.ID == http2.SettingInitialWindowSize {
			code = http2.ErrCodeFlowControl
		}
		return connError{code, "SETTINGS with a value that is not allowed"}
	}
	switch s.ID {
	case http2.SettingHeaderTableSize:
		c.mu.Lock()
		c.enc.SetMax(int(min(s.Val, tableSize)))
		c.mu.Unlock()
	case http2.SettingMaxConcurrentStreams:
		if c.pool != nil {
			c.mu.Lock()
			c.most = min(s.Val, unboundedStreams)
			c.mu.Unlock()
		}
	case http2.SettingInitialWindowSize:
		c.mu.Lock()
		delta := int(s.Val) - c.initial
		c.initial = int(s.Val)
		calls := c.calls.all()
		c.mu.Unlock()
		if delta == 0 {
			return nil
		}
		for _, s := range calls {
			if !c.widen(s, delta) {
				return connError{http2.ErrCodeFlowControl, "the windows of streams become too large"}
			}
		}
	default:
		// Larger frames than we send are no use, and lists of headers are the peer's to refuse.
	}
	return nil
}

// widen changes the window of a stream.
func (c *conn) widen(s slot, delta int) bool {
	k := s.call
	k.mu.Lock()
	defer k.unlock(&c.batch)
	flow := k.flowTo(c, s.id)
	if flow == nil {
		return true
	}
	ok := flow.widen(&c.batch, delta)
	k.settle(&c.batch)
	return ok
}

// ourPing is the PING that we send.
var ourPing = [8]byte{'h', 's', 'u', 'a', 'l', 'i', 'v', 'e'}

// lastPing is the one that goes with the first GOAWAY: when its answer is there, so is all that the client sent before
// it had read that.
var lastPing = [8]byte{'h', 's', 'u', 'd', 'r', 'a', 'i', 'n'}

func (c *conn) onPing(f frame) error {
	switch {
	case f.id != 0:
		return connError{http2.ErrCodeProtocol, "PING on a stream"}
	case len(f.payload) != 8:
		return connError{http2.ErrCodeFrameSize, "PING of a wrong size"}
	}
	data := [8]byte(f.payload)
	if f.flags&http2.FlagPingAck != 0 {
		if data == lastPing {
			c.leave(&c.batch)
		}
		return nil
	}
	useful := c.answerPing(data)
	if c.pool == nil && !c.guard.ping(c.relay.now(), useful, c.relay.opts.MinPing) {
		return connError{http2.ErrCodeEnhanceYourCalm, "too_many_pings"}
	}
	return nil
}

// answerPing appends the answer to a PING. It is written with what is written next, or soon: gRPC's clients and servers
// send a PING with most of what they get, to measure their connection, and a write for each answer would wake them for
// nothing while the call at hand has yet to be passed on. It tells whether the connection was useful since the last.
func (c *conn) answerPing(data [8]byte) (useful bool) {
	c.mu.Lock()
	if c.dead || c.ending {
		c.mu.Unlock()
		return false
	}
	if c.out == nil {
		c.out = writeBuffers.Get().(*buffer)
	}
	c.out.b = appendPing(c.out.b, true, data)
	useful, c.useful = c.useful, false
	c.end()
	if !c.late.Swap(true) {
		c.relay.acks.later(c)
	}
	return useful
}

func (c *conn) onGoAway(f frame) error {
	switch {
	case f.id != 0:
		return connError{http2.ErrCodeProtocol, "GOAWAY on a stream"}
	case len(f.payload) < 8:
		return connError{http2.ErrCodeFrameSize, "GOAWAY of a wrong size"}
	}
	if c.pool == nil {
		// It forbids us streams, which we never open, and says that the client is about to leave: those that it opens
		// yet, as gRPC's clients may, are served.
		c.warn(&c.batch)
		return nil
	}
	last := binary.BigEndian.Uint32(f.payload) & maxID
	c.pool.remove(c)
	c.mu.Lock()
	c.drain = draining
	calls := c.calls.all()
	c.mu.Unlock()
	for _, s := range calls {
		if s.id > last {
			c.lost(s, true, goneReason)
		}
	}
	c.mu.Lock()
	c.endIdle(&c.batch)
	c.mu.Unlock()
	c.batch.pools = append(c.batch.pools, c.pool)
	return nil
}

// lost tells the call of a stream that it has lost its backend.
func (c *conn) lost(s slot, unseen bool, reason string) {
	k := s.call
	k.mu.Lock()
	defer k.unlock(&c.batch)
	if k.backend == c && k.backendID == s.id {
		k.backendLost(&c.batch, unseen, reason)
	}
}

// endIdle closes a connection that is on its way out and has no streams left. c.mu is held.
func (c *conn) endIdle(b *batch) {
	if c.drain != draining || c.calls.n > 0 || c.ending || c.dead {
		return
	}
	c.touch(b)
	if c.pool != nil {
		c.out.b = appendGoAway(c.out.b, 0, http2.ErrCodeNo, "")
	}
	c.ending = true
}

// warn begins the end of a client's connection: it is told to open no more streams, but those that it has sent, or
// sends before it reads that, are served.
func (c *conn) warn(b *batch) {
	if !c.begin(b) {
		return
	}
	if c.drain == serving && c.said { // else hello does it, after the SETTINGS
		c.drain = warned
		c.out.b = appendGoAway(c.out.b, maxID, http2.ErrCodeNo, "graceful_stop")
		c.out.b = appendPing(c.out.b, false, lastPing)
	}
	c.end()
}

// leave names the last stream that is served, and closes the connection when it and those before it have ended.
func (c *conn) leave(b *batch) {
	if !c.begin(b) {
		return
	}
	if c.drain == warned {
		c.drain = draining
		c.out.b = appendGoAway(c.out.b, c.lastID, http2.ErrCodeNo, "graceful_stop")
		c.endIdle(b)
	}
	c.end()
}

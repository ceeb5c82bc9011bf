package relay

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"time"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/api/relay/protocol"
)

// This file is the beginning of a client's connection: TLS, the preface and the first SETTINGS.

// greet completes the TLS handshake, if TLS is configured, and prepares the connection for reading.
func (r *clientReader) greet() error {
	nc := r.client.socket.Conn
	if r.client.env.opts.TLS != nil {
		secure, err := r.handshake(nc)
		if err != nil {
			return err
		}
		nc = secure
	}
	r.client.use(&r.work, nc, nil)
	var name headers.List
	name.Add(protocol.Client, r.client.account.Peer().ID().String()+", "+nc.RemoteAddr().String())
	r.client.name = name.Bytes()
	return nil
}

func (r *clientReader) handshake(nc net.Conn) (net.Conn, error) {
	r.client.mu.Lock()
	err := r.client.out.Err()
	if !r.client.out.Dead() {
		err = nc.SetDeadline(time.Now().Add(r.client.env.opts.HandshakeTimeout))
	}
	r.client.mu.Unlock()
	if err != nil {
		return nil, err
	}
	secure := tls.Server(nc, r.client.env.opts.TLS)
	if err := secure.Handshake(); err != nil { //nolint:noctx // the deadline bounds it, and Close ends it
		if !errors.Is(err, io.EOF) { // otherwise the client only looked whether the port is open
			r.client.env.log.HandshakeFailed(r.client.address(), err)
		}
		return nil, err
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	state := secure.ConnectionState()
	r.old = state.NegotiatedProtocol != http2.NextProtoTLS
	if id, ok := peers.ByCertificate(state); ok {
		r.client.account.Become(r.client.env.now(), id)
	}
	return secure, nil
}

// readPreface handles the client's preface, or its beginning. Input that looks like HTTP/1 gets an answer in HTTP/1.
func (r *clientReader) readPreface(b []byte) error {
	n := min(len(b), len(http2.ClientPreface))
	if !r.old && string(b[:n]) == http2.ClientPreface[:n] {
		if n == len(http2.ClientPreface) {
			r.in.Skip(n)
			r.preface = true
			r.hello()
		}
		return nil
	}
	r.in.Discard()
	if b[0] < 'A' || b[0] > 'Z' || string(b[:min(len(b), 3)]) == "PRI" {
		return frames.Fault(http2.ErrCodeProtocol, "no preface of HTTP/2, or not agreed on by TLS")
	}
	if r.client.lockOutput(&r.work) {
		r.client.out.Pending.AppendText(oldHTTP)
		r.client.out.End()
		r.client.unlockOutput()
	}
	return nil
}

// oldHTTP is the answer to a client that speaks HTTP/1.
var oldHTTP = func() string {
	const text = "this port speaks gRPC, over HTTP/2 only\n"
	return "HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain\r\nConnection: close\r\n" +
		"Content-Length: " + strconv.Itoa(len(text)) + "\r\n\r\n" + text
}()

// hello sends the first SETTINGS. It runs after the client's preface has arrived, since an HTTP/1 client could not
// read them.
func (r *clientReader) hello() {
	if r.client.lockOutput(&r.work) {
		r.client.out.Pending.AppendSettings(
			http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: maxStreams},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList})
		r.client.out.Pending.AppendWindowUpdate(0, clientWindow-frames.FirstWindow)
		r.client.said = true
		r.client.unlockOutput()
	}
	if r.client.env.closing.Load() {
		r.client.warn(&r.work)
	}
}

package relay

import (
	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// turnAway ends a call that is sent to no endpoint, because of a fault of the client or because the client has too
// many calls. It charges the client, since the call is as much work as one that the client resets.
func (k *call) turnAway(w *deferred.Work, code uint32, message string) {
	if k.client.conn != nil {
		k.client.conn.account.Refused(k.env.now())
	}
	k.fail(w, code, message)
}

// refuse answers a request that is not gRPC with an HTTP status too, and charges the client as turnAway does.
func (k *call) refuse(w *deferred.Work, r protocol.Refusal) {
	k.client.conn.account.Refused(k.env.now())
	k.code = r.Code
	var l headers.List
	l.Add(":status", r.HTTPStatus)
	l.Add("content-type", "application/grpc")
	protocol.AddStatus(&l, r.Code, r.Message)
	k.client.sendHeaders(w, l.Bytes(), true)
	k.down.ended, k.down.endSent = true, true
	k.closeFinished(w)
}

const waitingForStream = "too many calls wait for a connection"

// crowdedOut ends a call because too many calls are in flight or waiting.
func (k *call) crowdedOut(w *deferred.Work, reason string) {
	if k.client.conn != nil {
		k.env.log.Limited("calls in flight: call refused", k.client.conn.account.Peer())
	}
	k.turnAway(w, protocol.CodeResourceExhausted, reason)
}

// expired fails a call that has waited for as long as it may.
func (k *call) expired(w *deferred.Work) {
	code, message := uint32(protocol.CodeUnavailable), "no server became ready in time"
	if k.request.deadline.Passed(k.env.now()) {
		code, message = protocol.CodeDeadlineExceeded, "no server became ready before the deadline"
	}
	if k.attempts.Failure != "" {
		message += ": " + k.attempts.Failure
	}
	k.fail(w, code, message)
}

// clientReset handles RST_STREAM from the client.
func (k *call) clientReset(w *deferred.Work, code http2.ErrCode) {
	if code == http2.ErrCodeNo {
		code = http2.ErrCodeCancel
	}
	if !k.down.ended {
		k.code = protocol.CodeCanceled
	}
	k.up.ended = true
	k.leaveClient(w)
	if k.backend.conn != nil {
		k.backend.reset(w, code)
		k.leaveBackend(w, services.Outcome{})
	}
}

// clientViolated ends the call because the client has violated HTTP/2.
func (k *call) clientViolated(w *deferred.Work, code http2.ErrCode) {
	k.code = protocol.CodeCanceled
	k.client.conn.streamError(w, k.client.id, code)
	k.leaveClient(w)
	k.closeFinished(w)
}

// brokenRules is the fault of a backend that has violated HTTP/2.
const brokenRules = "a frame that violates HTTP/2"

// sinkViolated ends the call because the peer at the flow's sink has violated HTTP/2.
func (f *flow) sinkViolated(w *deferred.Work, code http2.ErrCode) {
	if f.upward() {
		f.call.garbage(w, code, brokenRules)
	} else {
		f.call.clientViolated(w, code)
	}
}

// garbage ends a call whose backend does not speak gRPC.
func (k *call) garbage(w *deferred.Work, code http2.ErrCode, what string) {
	k.broken, k.code = true, protocol.CodeInternal
	if k.backend.conn != nil {
		k.backend.reset(w, code)
		k.leaveBackend(w, services.Outcome{})
	}
	k.fail(w, protocol.CodeInternal, "the server did not answer with gRPC: "+what)
}

// fail ends the call with a status from the relay itself.
func (k *call) fail(w *deferred.Work, code uint32, message string) {
	k.code = code
	if k.backend.conn != nil {
		k.backend.reset(w, http2.ErrCodeCancel)
		k.leaveBackend(w, services.Outcome{})
	}
	k.backend.endPick(services.Outcome{Code: k.code, Unseen: true})
	k.stopWaiting()
	if k.client.conn == nil {
		return
	}
	k.up.q.Release()
	switch {
	case k.response == awaited:
		k.down.q.Clear()
		var l headers.List
		l.Add(":status", "200")
		l.Add("content-type", "application/grpc")
		protocol.AddStatus(&l, code, message)
		k.client.sendHeaders(w, l.Bytes(), true)
		k.down.ended, k.down.endSent = true, true
	case k.response == plainResponse || k.down.msg.Inside():
		// A status after half of a message would not be read as a status.
		k.client.reset(w, http2.ErrCodeInternal)
		k.leaveClient(w)
		return
	default:
		if k.count == beingCounted {
			k.count = outdated
		}
		k.down.keepTrailers(protocol.StatusList(code, message))
		k.down.ended = true
		k.down.pump(w)
	}
	k.closeFinished(w)
}

// shed ends the call because memory is short.
func (k *call) shed(w *deferred.Work, message string) {
	if k.response == awaited {
		k.fail(w, protocol.CodeResourceExhausted, message)
		return
	}
	// Queued data precedes any status, so the stream has to end without one.
	k.code = protocol.CodeResourceExhausted
	k.client.reset(w, http2.ErrCodeEnhanceYourCalm)
	k.leaveClient(w)
	k.closeFinished(w)
}

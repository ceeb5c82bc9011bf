package relay

import (
	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/api/relay/retry"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// turnAway ends a call that is sent to no endpoint, because of a fault of the client or because the client has too
// many calls. It charges the client, since the call is as much work as one that the client resets.
func (k *call) turnAway(w *deferred.Work, code uint32, message string) {
	if k.client != nil {
		k.client.member.Refused(k.relay.now())
	}
	k.fail(w, code, message)
}

// refuse answers a request that is not gRPC with an HTTP status too, and charges the client as turnAway does.
func (k *call) refuse(w *deferred.Work, httpStatus string, code uint32, message string) {
	k.client.member.Refused(k.relay.now())
	k.code = code
	var l headers.List
	l.Add(":status", httpStatus)
	l.Add("content-type", "application/grpc")
	protocol.AddStatus(&l, code, message)
	k.client.sendHeaders(w, k.clientID, l.Bytes(), true)
	k.down.ended, k.down.endSent = true, true
	k.closeFinished(w)
}

const waitingForStream = "too many calls wait for a connection"

// crowdedOut ends a call because too many calls are in flight or waiting.
func (k *call) crowdedOut(w *deferred.Work, reason string) {
	if k.client != nil {
		k.relay.log.Limited("calls under way or waiting: more of it than of others", k.client.member.Peer())
	}
	k.turnAway(w, protocol.CodeResourceExhausted, reason)
}

// expired fails a call that has waited for as long as it may.
func (k *call) expired(w *deferred.Work) {
	code, message := uint32(protocol.CodeUnavailable), "no server became ready in time"
	if k.deadline.Passed(k.relay.now()) {
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
	if k.backend != nil {
		k.backend.reset(w, k.backendID, code)
		k.leaveBackend(w, services.Outcome{})
	}
}

// clientViolated ends the call because the client has violated HTTP/2.
func (k *call) clientViolated(w *deferred.Work, code http2.ErrCode) {
	k.code = protocol.CodeCanceled
	k.client.streamError(w, k.clientID, code)
	k.leaveClient(w)
	k.closeFinished(w)
}

// backendReset handles RST_STREAM from the backend.
func (k *call) backendReset(w *deferred.Work, code http2.ErrCode) {
	unseen := code == http2.ErrCodeRefusedStream
	k.attempts.Failure = "the server refused the call"
	k.code = protocol.CodeOfReset(code)
	k.broken = !unseen && code != http2.ErrCodeCancel && code != http2.ErrCodeEnhanceYourCalm
	if (unseen || k.code == protocol.CodeUnavailable) && k.again(w, unseen) {
		return
	}
	k.leaveBackend(w, services.Outcome{})
	if k.client == nil {
		return
	}
	if unseen && k.response == awaited {
		k.fail(w, protocol.CodeUnavailable, "the server refused the call")
		return
	}
	code = protocol.ResetOf(code)
	k.code = protocol.CodeOfReset(code)
	k.client.reset(w, k.clientID, code)
	k.leaveClient(w)
}

// goneReason is the reason of a call whose backend has announced that it shuts down.
const goneReason = "the server is shutting down"

// backendLost handles the end of the backend's connection. unseen means that the backend cannot have seen the call.
func (k *call) backendLost(w *deferred.Work, unseen bool, reason string) {
	k.code, k.broken = protocol.CodeUnavailable, !(unseen && reason == goneReason)
	k.attempts.Failure = reason
	if unseen && reason == goneReason && k.backend.hasAnswered() {
		if k.waitLeft() > 0 {
			k.attempts.Forgive()
		}
	}
	if k.again(w, unseen) {
		return
	}
	k.leaveBackend(w, services.Outcome{})
	k.fail(w, protocol.CodeUnavailable, reason)
}

// again retries the call if that is safe. It returns false if the failure is final.
func (k *call) again(w *deferred.Work, unseen bool) bool {
	again, budget := retry.MayTryAgain(retry.Failed{
		Unseen: unseen, Idempotent: k.idempotent, Started: k.response != awaited,
		Whole: k.up.q.Keep && k.request.Kept(), Attempts: k.attempts.All,
	})
	if !again || k.client == nil || k.relay.closing.Load() || budget && (k.service == nil || !k.service.Retry()) {
		return false
	}
	k.leaveBackend(w, services.Outcome{Retried: true, Unseen: unseen})
	k.up.replay += k.up.q.Kept
	k.up.q.Rewind()
	k.up.endSent = false
	k.code, k.broken = 0, false
	if k.attempts.MustPause() {
		k.pause(w)
	} else {
		k.dispatch(w)
	}
	return true
}

// brokenRules is the fault of a backend that has violated HTTP/2.
const brokenRules = "a frame against the rules of HTTP/2"

// garbage ends a call whose backend does not speak gRPC.
func (k *call) garbage(w *deferred.Work, code http2.ErrCode, what string) {
	k.broken, k.code = true, protocol.CodeInternal
	if k.backend != nil {
		k.backend.reset(w, k.backendID, code)
		k.leaveBackend(w, services.Outcome{})
	}
	k.fail(w, protocol.CodeInternal, "the server answered what is no gRPC: "+what)
}

// fail ends the call with a status from the relay itself.
func (k *call) fail(w *deferred.Work, code uint32, message string) {
	k.code = code
	if k.backend != nil {
		k.backend.reset(w, k.backendID, http2.ErrCodeCancel)
		k.leaveBackend(w, services.Outcome{})
	}
	k.endPick(services.Outcome{Code: k.code, Unseen: true})
	k.stopWaiting()
	if k.client == nil {
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
		k.client.sendHeaders(w, k.clientID, l.Bytes(), true)
		k.down.ended, k.down.endSent = true, true
	case k.response == plainResponse || k.down.msg.Inside():
		// A status after half of a message would not be read as a status.
		k.client.reset(w, k.clientID, http2.ErrCodeInternal)
		k.leaveClient(w)
		return
	default:
		if k.count == holding {
			k.count = outdated
		}
		k.keepTrailers(protocol.StatusList(code, message))
		k.down.ended = true
		k.down.pump(w)
	}
	k.closeFinished(w)
}

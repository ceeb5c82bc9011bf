package relay

import (
	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// turnAway ends a call that is sent to no endpoint, because of a fault of the client or because the client has too
// many calls. It charges the client, since the call is as much work as one that the client resets.
func (k *call) turnAway(w *work, code uint32, message string) {
	if k.client != nil {
		k.client.member.Refused(k.relay.now())
	}
	k.fail(w, code, message)
}

// refuse answers a request that is not gRPC with an HTTP status too, and charges the client as turnAway does.
func (k *call) refuse(w *work, httpStatus string, code uint32, message string) {
	k.client.member.Refused(k.relay.now())
	k.code = code
	var l headers.List
	l.Add(":status", httpStatus)
	l.Add("content-type", "application/grpc")
	addStatus(&l, code, message)
	k.client.sendHeaders(w, k.clientID, l.Bytes(), true)
	k.down.ended, k.down.endSent = true, true
	k.closeFinished(w)
}

const waitingForStream = "too many calls wait for a connection"

// crowdedOut ends a call because too many calls are in flight or waiting.
func (k *call) crowdedOut(w *work, reason string) {
	if k.client != nil {
		k.relay.log.limited("calls under way or waiting: more of it than of others", k.client.member.Peer())
	}
	k.turnAway(w, codeResourceExhausted, reason)
}

// expired fails a call that has waited for as long as it may.
func (k *call) expired(w *work) {
	code, message := uint32(codeUnavailable), "no server became ready in time"
	if k.deadline.passed(k.relay.now()) {
		code, message = codeDeadlineExceeded, "no server became ready before the deadline"
	}
	if k.attempts.failure != "" {
		message += ": " + k.attempts.failure
	}
	k.fail(w, code, message)
}

// clientReset handles RST_STREAM from the client.
func (k *call) clientReset(w *work, code http2.ErrCode) {
	if code == http2.ErrCodeNo {
		code = http2.ErrCodeCancel
	}
	if !k.down.ended {
		k.code = codeCanceled
	}
	k.up.ended = true
	k.leaveClient(w)
	if k.backend != nil {
		k.backend.reset(w, k.backendID, code)
		k.leaveBackend(w, services.Outcome{})
	}
}

// clientViolated ends the call because the client has violated HTTP/2.
func (k *call) clientViolated(w *work, code http2.ErrCode) {
	k.code = codeCanceled
	k.client.streamError(w, k.clientID, code)
	k.leaveClient(w)
	k.closeFinished(w)
}

// backendReset handles RST_STREAM from the backend.
func (k *call) backendReset(w *work, code http2.ErrCode) {
	unseen := code == http2.ErrCodeRefusedStream
	k.attempts.failure = "the server refused the call"
	k.code = codeOfReset(code)
	k.broken = !unseen && code != http2.ErrCodeCancel && code != http2.ErrCodeEnhanceYourCalm
	if (unseen || k.code == codeUnavailable) && k.again(w, unseen) {
		return
	}
	k.leaveBackend(w, services.Outcome{})
	if k.client == nil {
		return
	}
	if unseen && k.response == awaited {
		k.fail(w, codeUnavailable, "the server refused the call")
		return
	}
	code = resetOf(code)
	k.code = codeOfReset(code)
	k.client.reset(w, k.clientID, code)
	k.leaveClient(w)
}

// goneReason is the reason of a call whose backend has announced that it shuts down.
const goneReason = "the server is shutting down"

// backendLost handles the end of the backend's connection. unseen means that the backend cannot have seen the call.
func (k *call) backendLost(w *work, unseen bool, reason string) {
	k.code, k.broken = codeUnavailable, !(unseen && reason == goneReason)
	k.attempts.failure = reason
	if unseen && reason == goneReason && k.backend.hasAnswered() {
		if k.waitLeft() > 0 {
			k.attempts.forgive()
		}
	}
	if k.again(w, unseen) {
		return
	}
	k.leaveBackend(w, services.Outcome{})
	k.fail(w, codeUnavailable, reason)
}

// again retries the call if that is safe. It returns false if the failure is final.
func (k *call) again(w *work, unseen bool) bool {
	again, budget := mayTryAgain(failed{
		unseen: unseen, idempotent: k.idempotent, started: k.response != awaited,
		whole: k.up.q.keep && k.request.kept(), attempts: k.attempts.all,
	})
	if !again || k.client == nil || k.relay.closing.Load() || budget && (k.service == nil || !k.service.Retry()) {
		return false
	}
	k.leaveBackend(w, services.Outcome{Retried: true, Unseen: unseen})
	k.up.replay += k.up.q.kept
	k.up.q.rewind()
	k.up.endSent = false
	k.code, k.broken = 0, false
	if k.attempts.mustPause() {
		k.pause(w)
	} else {
		k.dispatch(w)
	}
	return true
}

// brokenRules is the fault of a backend that has violated HTTP/2.
const brokenRules = "a frame against the rules of HTTP/2"

// garbage ends a call whose backend does not speak gRPC.
func (k *call) garbage(w *work, code http2.ErrCode, what string) {
	k.broken, k.code = true, codeInternal
	if k.backend != nil {
		k.backend.reset(w, k.backendID, code)
		k.leaveBackend(w, services.Outcome{})
	}
	k.fail(w, codeInternal, "the server answered what is no gRPC: "+what)
}

// fail ends the call with a status from the relay itself.
func (k *call) fail(w *work, code uint32, message string) {
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
	k.up.q.release()
	switch {
	case k.response == awaited:
		k.down.q.clear()
		var l headers.List
		l.Add(":status", "200")
		l.Add("content-type", "application/grpc")
		addStatus(&l, code, message)
		k.client.sendHeaders(w, k.clientID, l.Bytes(), true)
		k.down.ended, k.down.endSent = true, true
	case k.response == plainResponse || k.down.msg.inside():
		// A status after half of a message would not be read as a status.
		k.client.reset(w, k.clientID, http2.ErrCodeInternal)
		k.leaveClient(w)
		return
	default:
		if k.count == holding {
			k.count = outdated
		}
		k.keepTrailers(statusList(code, message))
		k.down.ended = true
		k.down.pump(w)
	}
	k.closeFinished(w)
}

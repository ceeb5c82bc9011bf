package relay

import "github.com/core-tools/hsu-master/supervisor/services"

// mostAttempts bounds the consecutive attempts of a call. A call that no endpoint can have seen pauses after these, and
// then starts anew.
const mostAttempts = 3

// attempts are the attempts of a call. They are consecutive until the call pauses.
type attempts struct {
	tried   [mostAttempts]*services.Endpoint // of the consecutive ones; nil for the local server
	n       int                              // the number of consecutive attempts
	all     int                              // the number of attempts in all
	failure string                           // the latest one
}

// endpoints returns the endpoints that the consecutive attempts have had.
func (a *attempts) endpoints() []*services.Endpoint { return a.tried[:a.n] }

// choose sets the endpoint of the next attempt.
func (a *attempts) choose(e *services.Endpoint) { a.tried[a.n] = e }

func (a *attempts) begin() {
	a.n++
	a.all++
}

// undo takes back the begin of an attempt that was only queued.
func (a *attempts) undo() {
	a.n--
	a.all--
}

// forgive does not count the last attempt, so that the call neither pauses nor avoids the endpoint: the endpoint's
// connection has answered calls and ends as announced, and another connection takes the call.
func (a *attempts) forgive() {
	if a.n > 0 {
		a.n--
		a.tried[a.n] = nil
	}
}

// mustPause reports whether the call must pause before it may try all endpoints again.
func (a *attempts) mustPause() bool { return a.n >= mostAttempts }

// pause makes the next attempt the first of the consecutive ones.
func (a *attempts) pause() { a.tried, a.n = [mostAttempts]*services.Endpoint{}, 0 }

// failed describes a call after an attempt has failed.
type failed struct {
	unseen     bool // the endpoint cannot have seen the call
	idempotent bool // it may be executed twice
	started    bool // part of the response has been passed on
	whole      bool // everything that was sent of the request is still here
	attempts   int  // so far, including this one
}

// mayTryAgain reports whether a call may be sent again, and whether that takes from the service's retry budget.
func mayTryAgain(f failed) (again, budget bool) {
	if f.started || !f.whole || !f.unseen && (!f.idempotent || f.attempts >= mostAttempts) {
		return false, false
	}
	// An attempt that was not seen has cost an endpoint nothing, so another one adds no load to an overloaded
	// endpoint.
	return true, !f.unseen
}

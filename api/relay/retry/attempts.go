// Package retry holds what decides whether, when and for how long a call is tried: its [Attempts], its [Deadline], its
// [Wait], and the decision itself, [MayTryAgain]. It executes nothing. The lock of the call guards all of it.
package retry

import "github.com/core-tools/hsu-master/supervisor/services"

// MostAttempts bounds the consecutive attempts of a call. A call that no endpoint can have seen pauses after these, and
// then starts anew.
const MostAttempts = 3

// Attempts are the attempts of a call. They are consecutive until the call pauses.
type Attempts struct {
	tried   [MostAttempts]*services.Endpoint // of the consecutive ones; nil for the local server
	n       int                              // the number of consecutive attempts
	All     int                              // the number of attempts in all
	Failure string                           // the latest one
}

// Any reports whether there were consecutive attempts.
func (a *Attempts) Any() bool { return a.n > 0 }

// Endpoints returns the endpoints that the consecutive attempts have had.
func (a *Attempts) Endpoints() []*services.Endpoint { return a.tried[:a.n] }

// Choose sets the endpoint of the next attempt.
func (a *Attempts) Choose(e *services.Endpoint) { a.tried[a.n] = e }

// Begin counts an attempt, which begins.
func (a *Attempts) Begin() {
	a.n++
	a.All++
}

// Undo takes back the begin of an attempt that was only queued.
func (a *Attempts) Undo() {
	a.n--
	a.All--
}

// Forgive does not count the last attempt, so that the call neither pauses nor avoids the endpoint: the endpoint's
// connection has answered calls and ends as announced, and another connection takes the call.
func (a *Attempts) Forgive() {
	if a.n > 0 {
		a.n--
		a.tried[a.n] = nil
	}
}

// MustPause reports whether the call must pause before it may try all endpoints again.
func (a *Attempts) MustPause() bool { return a.n >= MostAttempts }

// Pause makes the next attempt the first of the consecutive ones.
func (a *Attempts) Pause() { a.tried, a.n = [MostAttempts]*services.Endpoint{}, 0 }

// Failed describes a call after an attempt has failed.
type Failed struct {
	Unseen     bool // the endpoint cannot have seen the call
	Idempotent bool // it may be executed twice
	Started    bool // part of the response has been passed on
	Whole      bool // everything that was sent of the request is still here
	Attempts   int  // so far, including this one
}

// MayTryAgain reports whether a call may be sent again, and whether that takes from the service's retry budget.
func MayTryAgain(f Failed) (again, budget bool) {
	if f.Started || !f.Whole || !f.Unseen && (!f.Idempotent || f.Attempts >= MostAttempts) {
		return false, false
	}
	// An attempt that was not seen has cost an endpoint nothing, so another one adds no load to an overloaded
	// endpoint.
	return true, !f.Unseen
}

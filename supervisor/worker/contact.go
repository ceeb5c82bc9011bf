package worker

import (
	"context"
	"sync/atomic"
)

// contact is how the master reaches the present instance: the link to it, the watch on that link, and the checks. The
// worker's goroutine owns it.
type contact struct {
	link    Link               // nil while the instance is not connected
	unwatch context.CancelFunc // ends the watch on the link
	checks  []check            // the first one decides about calls; nil while the instance is not connected
	shown   *atomic.Pointer[[]check]
	// unasked is set while an adopted instance gets calls and has answered no check that decides about them.
	unasked bool
}

func (c *contact) open(l Link, unwatch context.CancelFunc) {
	c.link, c.unwatch, c.unasked = l, unwatch, false
}

// askFirst makes the first check of an adopted instance that gets calls already.
func (c *contact) askFirst() {
	if c.unasked && len(c.checks) > 0 {
		c.checks[0].Now()
	}
}

// check makes these the checks of the instance.
func (c *contact) check(checks ...check) {
	c.stopChecks()
	c.checks = checks
	c.shown.Store(&checks)
}

func (c *contact) stopChecks() {
	for _, each := range c.checks {
		each.Stop()
	}
	c.checks = nil
	c.shown.Store(nil)
}

// hangUp closes the connection; calls in flight on it fail.
func (c *contact) hangUp() {
	if c.unwatch != nil {
		c.unwatch()
	}
	c.stopChecks()
	if c.link != nil {
		c.link.Shutdown()
	}
	c.link, c.unwatch = nil, nil
}

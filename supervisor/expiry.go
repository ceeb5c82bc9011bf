package supervisor

import (
	"context"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
)

// extend gives a registration a fresh ttl.
func (o *outside) extend(r *registration) {
	if r.TTL > 0 {
		r.expires = time.Now().Add(r.TTL)
	}
}

// expire removes each registration whose heartbeat does not come.
func (o *outside) expire(ctx context.Context) {
	timer := stoppedTimer()
	defer timer.Stop()
	for {
		if next := o.nextExpiry(); !next.IsZero() {
			timer.Reset(max(0, time.Until(next)))
		} else {
			timer.Stop()
		}
		select {
		case <-timer.C:
			o.removeExpired(ctx)
		case <-o.wake:
		case <-ctx.Done():
			return
		}
	}
}

func (o *outside) nextExpiry() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	var next time.Time
	for _, x := range o.at {
		for _, r := range x.names {
			if !r.expires.IsZero() && (next.IsZero() || r.expires.Before(next)) {
				next = r.expires
			}
		}
	}
	return next
}

// removeExpired removes those whose time is over. None is registered anew between the
// two halves of it, or its new record would be deleted.
func (o *outside) removeExpired(ctx context.Context) {
	o.durable.Lock()
	gone := o.expired()
	var muts []store.Mutation
	for _, r := range gone {
		e := store.Event{Time: time.Now(), Type: eventExpired, Detail: describe(r)}
		muts = append(muts, store.DeleteRegistration(r.Service, r.Address), store.AppendEvent(e))
	}
	var err error
	if len(gone) > 0 {
		err = crashpoint.Do(crashpoint.ExpireRecord, func() error { return o.sup.opts.Store.Apply(ctx, muts...) })
	}
	o.durable.Unlock()
	for _, r := range gone {
		o.sup.log.Warn("endpoint from outside sent no heartbeat, removed", "service", r.Service, "address", r.Address, "ttl", r.TTL)
	}
	if err != nil && ctx.Err() == nil {
		// The next master would give them one more ttl, and remove them then.
		o.sup.log.Error("removal not recorded", "endpoints", len(gone), "error", err)
	}
}

// expired takes out those whose time is over. o.durable is held.
func (o *outside) expired() []store.Registration {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	var gone []store.Registration
	for _, x := range o.at {
		for _, r := range x.names {
			if !r.expires.IsZero() && !r.expires.After(now) {
				gone = append(gone, r.Registration)
			}
		}
	}
	o.remove(gone)
	return gone
}

// look has what expires next looked for again.
func (o *outside) look() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

package registrations

import (
	"context"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store/records"
)

// expire removes each registration whose heartbeat is overdue, until ctx ends.
func (s *Set) expire(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		if next := s.nextExpiry(); !next.IsZero() {
			timer.Reset(max(0, time.Until(next)))
		} else {
			timer.Stop()
		}
		select {
		case <-timer.C:
			s.removeExpired(ctx)
		case <-s.wake:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Set) nextExpiry() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	var next time.Time
	for _, x := range s.at {
		for _, r := range x.names {
			if !r.expires.IsZero() && (next.IsZero() || r.expires.Before(next)) {
				next = r.expires
			}
		}
	}
	return next
}

// removeExpired removes the expired registrations. It holds s.durable so that none is registered again between the
// removal from memory and the removal from the store, which would delete the new record.
func (s *Set) removeExpired(ctx context.Context) {
	s.durable.Lock()
	gone := s.expired()
	var muts []records.Mutation
	for _, r := range gone {
		e := records.Event{Time: time.Now(), Type: eventtype.Expired, Detail: describe(r)}
		muts = append(muts, records.DeleteRegistration(r.Service, r.Address), records.AppendEvent(e))
	}
	var err error
	if len(gone) > 0 {
		err = crashpoint.Do(crashpoint.ExpireRecord, func() error { return s.store.Apply(ctx, muts...) })
	}
	s.durable.Unlock()
	for _, r := range gone {
		s.log.Warn("endpoint expired", "service", r.Service, "address", r.Address, "ttl", r.TTL)
	}
	if err != nil && ctx.Err() == nil {
		// The next master would give them one more ttl, and then remove them.
		s.log.Error("endpoint expiry not recorded", "endpoints", len(gone), "error", err)
	}
}

// expired removes the expired registrations from memory and returns them. The caller holds s.durable.
func (s *Set) expired() []records.Registration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var gone []records.Registration
	for _, x := range s.at {
		for _, r := range x.names {
			if !r.expires.IsZero() && !r.expires.After(now) {
				gone = append(gone, r.Registration)
			}
		}
	}
	s.remove(gone)
	return gone
}

// look makes expire compute the next expiry again.
func (s *Set) look() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

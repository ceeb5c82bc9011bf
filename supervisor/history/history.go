// Package history reads the events of a state: those that a query selects, and new ones as soon as they are durable.
package history

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
)

// Query selects events. An empty field selects all.
type Query struct {
	Names []string // ids of workers and names of units
	Types []string
	Since time.Time
	After uint64 // only events with higher numbers
	Last  int    // of the recorded ones only the newest; below 0: all
}

// Match reports whether the query selects the event. Last does not count.
func (q Query) Match(e records.Entry) bool {
	switch {
	case e.Seq <= q.After, e.Time.Before(q.Since):
		return false
	case len(q.Types) > 0 && !slices.ContainsFunc(q.Types, func(t string) bool { return isOfType(e, t) }):
		return false
	}
	return len(q.Names) == 0 || e.Worker != "" && slices.Contains(q.Names, e.Worker) ||
		e.UnitName() != "" && slices.Contains(q.Names, e.UnitName())
}

// isOfType reports whether the event is of a type, by the present name of that or by one of an earlier release.
func isOfType(e records.Entry, name string) bool {
	return eventtype.Current(e.Type) == eventtype.Current(name)
}

// Filter returns the entries that the query selects, of these the newest if Last is set.
func (q Query) Filter(entries []records.Entry) []records.Entry {
	matches := slices.DeleteFunc(slices.Clone(entries), func(e records.Entry) bool { return !q.Match(e) })
	if q.Last >= 0 && len(matches) > q.Last {
		matches = matches[len(matches)-q.Last:]
	}
	return matches
}

// Source has the events of a state, as [store.DB] does.
type Source interface {
	Events(after uint64, most int) ([]records.Entry, error)
	LastEvent() (last uint64, grown <-chan struct{})
}

// chunk is the number of events that are read at once.
const chunk = 256

// unreadable is the interval of attempts while the state cannot be read.
const unreadable = 250 * time.Millisecond

// Recorded returns the recorded events with numbers above after, and the number of the newest one.
func Recorded(s Source, after uint64) (entries []records.Entry, last uint64, err error) {
	last, _ = s.LastEvent()
	if entries, err = s.Events(after, math.MaxInt); err != nil {
		return nil, last, err
	}
	if n := len(entries); n > 0 {
		last = max(last, entries[n-1].Seq)
	}
	return entries, last, nil
}

// Follow passes all events with numbers above after to each, in their order and each once, until ctx ends or each
// returns an error, which Follow returns. dropped is the number of events before entries that are not kept any more,
// or cannot be read. A slow reader delays nothing but itself.
func Follow(
	ctx context.Context, s Source, after uint64, each func(entries []records.Entry, dropped uint64) error,
) error {
	for {
		last, grown := s.LastEvent()
		var retry <-chan time.Time
		for last > after && retry == nil {
			entries, err := s.Events(after, chunk)
			switch {
			case errors.Is(err, store.ErrUnavailable):
				grown, retry = nil, time.After(unreadable)
				continue
			case err != nil:
				return fmt.Errorf("read the history: %w", err)
			case len(entries) == 0: // none of them can be read
				after = last
				continue
			}
			newest := entries[len(entries)-1].Seq
			if err := each(entries, newest-after-uint64(len(entries))); err != nil {
				return err
			}
			after = newest
		}
		select {
		case <-grown:
		case <-retry:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

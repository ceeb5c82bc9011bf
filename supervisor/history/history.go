// Package history reads the events of a state: those that a query selects, and new ones as soon as they are durable.
package history

import (
	"context"
	"errors"
	"fmt"
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
	return len(q.Names) == 0 || slices.ContainsFunc(q.Names, func(name string) bool { return concerns(e, name) })
}

// concerns reports whether an event is of the worker or the unit with that name.
func concerns(e records.Entry, name string) bool {
	return name != "" && (e.Worker == name || e.UnitName() == name)
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

// chunk is the number of new events that are read at once, and few that of recorded ones, which a slow reader may keep
// in memory for long.
const (
	chunk = 256
	few   = 64
)

// unreadable is the interval of attempts while the state cannot be read.
const unreadable = 250 * time.Millisecond

// Survey describes the recorded events with numbers above the After of a query.
type Survey struct {
	Last     uint64   // the number of the newest event
	Recorded uint64   // how many events there are
	Selected uint64   // how many of them the query selects
	Unknown  []string // the names of the query that no event has
	Before   uint64   // the selected ones have higher numbers
}

// Look returns a survey for the query. Like [Survey.Pass], it holds only some of the events at a time in memory.
func Look(s Source, q Query) (Survey, error) {
	v := Survey{Unknown: slices.Clone(q.Names), Before: q.After}
	v.Last, _ = s.LastEvent()
	var selected []uint64
	err := v.read(s, q.After, func(entries []records.Entry) error {
		v.Recorded += uint64(len(entries))
		for _, e := range entries {
			v.Unknown = slices.DeleteFunc(v.Unknown, func(name string) bool { return concerns(e, name) })
			if q.Match(e) {
				selected = append(selected, e.Seq)
			}
		}
		return nil
	})
	if surplus := len(selected) - q.Last; q.Last >= 0 && surplus > 0 {
		v.Before, selected = selected[surplus-1], selected[surplus:]
	}
	v.Selected = uint64(len(selected))
	return v, err
}

// Pass passes the selected events to each, in their order and some at a time, with the number up to which all are
// passed. It returns the number of those that were not passed, because they are not kept any more.
func (v Survey) Pass(
	s Source, q Query, each func(entries []records.Entry, until uint64) error,
) (lost uint64, err error) {
	lost = v.Selected
	err = v.read(s, v.Before, func(entries []records.Entry) error {
		until := entries[len(entries)-1].Seq
		entries = slices.DeleteFunc(entries, func(e records.Entry) bool { return !q.Match(e) })
		if len(entries) == 0 {
			return nil
		}
		lost -= min(lost, uint64(len(entries)))
		return each(entries, until)
	})
	return lost, err
}

// read passes the events with numbers above after, up to v.Last, some at a time.
func (v Survey) read(s Source, after uint64, each func([]records.Entry) error) error {
	for after < v.Last {
		entries, err := s.Events(after, few)
		if err != nil {
			return err
		}
		entries = slices.DeleteFunc(entries, func(e records.Entry) bool { return e.Seq > v.Last })
		if len(entries) == 0 { // none of the others can be read
			return nil
		}
		after = entries[len(entries)-1].Seq
		if err := each(entries); err != nil {
			return err
		}
	}
	return nil
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

package worker

import (
	"testing"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
)

func TestSettledOnlyIfAllIsRecorded(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*owner)
		want   bool
	}{
		"nothing to do":              {func(*owner) {}, true},
		"not ready":                  {func(w *owner) { w.state.Ready = false }, false},
		"adopted and not yet asked":  {func(w *owner) { w.unasked = true }, false},
		"the record differs":         {func(w *owner) { w.rec.Outdated = true }, false},
		"an event to be recorded":    {func(w *owner) { w.journal.add(records.Event{}) }, false},
		"a service to be recorded":   {func(w *owner) { w.routes.offers = nil }, false},
		"a run of a hook is planned": {func(w *owner) { w.hooks.runs.plan(hookRun{}) }, false},
	} {
		w := &owner{Worker: &Worker{}, rec: records.Worker{Services: []records.Offer{{Name: "s"}}}}
		w.state = lifecycle.State{
			Wanted: true, Slot: lifecycle.Occupied, Ready: true, Status: records.StatusRunning,
		}
		w.journal.saved, w.routes.offers = w.rec, w.rec.Services
		c.change(w)
		if got := settled(w); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}

func TestCalmEndsWithTheNextOtherEvent(t *testing.T) {
	var c calm
	for i, event := range []struct{ passed, lasts bool }{
		{true, false},
		{true, true},
		{true, true},
		{false, true},
		{true, false},
		{true, true},
		{false, true},
		{false, false},
	} {
		c.next()
		if got := c.lasts(); got != event.lasts {
			t.Errorf("event %d: %t, want %t", i, got, event.lasts)
		}
		if event.passed {
			c.settle()
		}
	}
}

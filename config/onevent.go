package config

import (
	"errors"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/internal/nearest"
)

// OnEvent is a command that is run for events of the history.
type OnEvent struct {
	Types, Units []string // empty means all
	Run          []string
	Timeout      time.Duration
	User         string
}

func (o *OnEvent) keys() []key {
	return []key{
		{
			name: "types", value: listOf(&o.Types, eventType),
			doc: "types of the events, see [EVENTS.md](EVENTS.md#types); the default is all",
		},
		{
			name: "units", value: listOf(&o.Units, text),
			doc: "units whose events are meant, with those of their workers; the default is all events",
		},
		{
			name: "run", value: command(&o.Run),
			doc: "program and arguments; it reads the event from stdin, as `events --json` prints it",
		},
		{
			name: "timeout", value: duration(&o.Timeout, 100*time.Millisecond), def: "10s",
			doc: "after this time, the command is killed with all its descendants",
		},
		{
			name: "user", value: account(&o.User, "user"),
			doc: "user that the command runs as; the default is that of the master",
		},
	}
}

func eventType(at *string) value {
	names := eventtype.Names()
	in := form{name: "a type of events", json: "string", allowed: names}
	return scalar[string]{at: at, in: in, parse: func(s string) (string, error) {
		if !slices.Contains(names, s) {
			return "", errors.New("is no type of events such as exited or failed" + nearest.DidYouMean(s, names))
		}
		return s, nil
	}}
}

// maxOnEvent bounds the number of commands for events.
const maxOnEvent = 100

// onEventValue is the list of the commands for events.
type onEventValue struct{ at *[]OnEvent }

func (v onEventValue) form() form {
	return form{name: "a list of maps", json: "array", items: &form{json: "object", keys: new(OnEvent).keys()}}
}

func (v onEventValue) read(r *reader, n *node) {
	switch {
	case n.blank():
		return
	case n.kind != listNode:
		r.fault(n, "must be a list such as [{types: [failed], run: [./notify.sh]}]")
		return
	case len(n.items) > maxOnEvent:
		r.fault(n, "has %d commands: at most %d are possible", len(n.items), maxOnEvent)
		return
	}
	for _, item := range n.items {
		var o OnEvent
		setDefaults(o.keys(), 0)
		fields(&o).read(r, item)
		if item.kind == nullNode || item.kind == mapNode && item.get("run") == nil {
			r.fault(item, "run is missing: a list such as [./notify.sh]")
		}
		*v.at = append(*v.at, o)
	}
}

// checkOnEvent reports units of commands for events that the file does not have.
func (l *loader) checkOnEvent(file *File) {
	var known []string
	for i := range file.Units {
		known = append(known, file.Units[i].Name)
	}
	r := l.reader()
	r.path = []string{"on_event"}
	for _, item := range itemsOf(file.main.get("on_event")) {
		for _, unit := range itemsOf(item.get("units")) {
			if name, fault := r.expand(unit, plain); fault == "" && !slices.Contains(known, name) {
				r.fault(unit, "there is no unit %s%s", r.quote(unit), nearest.DidYouMean(name, known))
			}
		}
	}
}

//go:build e2e && linux && (crash || torture)

package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/supervisor/history"
)

// eventCommands are the commands that the masters run for events. Each notes the event that it gets, and a second time
// when it ends. Without its master it never ends, nor without an event: the master may be killed before it passes that.
type eventCommands struct {
	folder string
	exits  int // commands for an exit that had ended when the operation began
}

const eventCommand = `#!/bin/sh
read -r event || exec sleep 1000000
printf '%s\n' "$event" >>"$1.begun"
sleep 0.05
kill -0 $PPID 2>/dev/null || exec sleep 1000000
printf '%s\n' "$event" >>"$1.ended"
`

// addEventCommands has the masters run commands for events.
func (r *rig) addEventCommands() error {
	r.events = &eventCommands{folder: filepath.Join(r.dir, "events")}
	return errors.Join(
		os.Mkdir(r.events.folder, 0o700),
		harness.WriteProgram(r.events.command(), []byte(eventCommand)),
	)
}

func (e *eventCommands) command() string { return filepath.Join(e.folder, "command") }

// keys returns the key "on_event" of the file.
func (e *eventCommands) keys() string {
	if e == nil {
		return ""
	}
	return fmt.Sprintf("on_event:\n- {types: [exited, started], run: [%q, %q]}\n"+
		"- {units: [worker], types: [exited], run: [%[1]q, %[3]q]}\n",
		e.command(), filepath.Join(e.folder, "some"), filepath.Join(e.folder, "exits"))
}

// noted returns the events that the commands of a rule have noted, when they began or when they ended.
func (e *eventCommands) noted(rule, when string) (lines []history.Line, err error) {
	text, err := os.ReadFile(filepath.Join(e.folder, rule+"."+when))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for raw := range strings.Lines(string(text)) {
		var line history.Line
		if err := json.Unmarshal([]byte(raw), &line); err != nil {
			return nil, fmt.Errorf("a command for events got %q: %w", raw, err)
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// check returns an error unless each event was passed at most once to each rule, in order, and only matching ones.
func (e *eventCommands) check() error {
	if e == nil {
		return nil
	}
	var errs []error
	for rule, types := range map[string]string{"some": "exited started", "exits": "exited"} {
		lines, err := e.noted(rule, "begun")
		errs = append(errs, err)
		last := uint64(0)
		for _, l := range lines {
			if l.Seq <= last || !strings.Contains(types, l.Type) {
				errs = append(errs, fmt.Errorf("%s: event %d of type %s was passed after %d", rule, l.Seq, l.Type, last))
			}
			last = l.Seq
		}
	}
	return errors.Join(errs...)
}

// ended returns the number of commands for an exit that have ended.
func (e *eventCommands) ended() (int, error) {
	lines, err := e.noted("exits", "ended")
	return len(lines), err
}

// overdue returns the commands that live although no master runs them. Those that run for events at the last scan are
// the present master's, unless the last inspection had seen them.
func (ws *workers) overdue() (left []being) {
	for _, b := range ws.commands {
		if !strings.HasPrefix(b.worker, "on_event/") || ws.left[b.token] {
			left = append(left, b)
		}
	}
	return left
}

// swept returns nil when the running master has ended the commands for events of an earlier one: it does so while it
// serves already.
func (r *rig) swept() error {
	if r.events == nil {
		return nil
	}
	r.workers.scan()
	if left := r.workers.overdue(); len(left) > 0 {
		return fmt.Errorf("commands of an earlier master live: %+v", left)
	}
	return nil
}

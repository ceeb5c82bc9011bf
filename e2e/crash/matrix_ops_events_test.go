//go:build e2e && crash && linux

package crash

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Operations of a master that runs commands for events.

func operationsWithEventCommands() []*operation {
	return []*operation{
		{
			name: "worker crashes, event commands", file: true, events: true, life: 10,
			begin: func(r *rig) (err error) {
				if r.events.exits, err = r.events.ended(); err != nil {
					return err
				}
				return ends(unix.SIGKILL)(r)
			},
			rest: func(r *rig, before, now map[string]int) error {
				if err := restarted(r, before, now); err != nil {
					return err
				}
				n, err := r.events.ended()
				if err == nil && n == r.events.exits {
					err = errors.New("no command was run for the exit")
				}
				return err
			},
		},
	}
}

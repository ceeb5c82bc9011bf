//go:build e2e && crash && linux

package crash

import (
	"errors"
	"syscall"
)

// operationsOnTheProgram replace the program of the master in its process, by itself.
func operationsOnTheProgram() []*operation {
	return []*operation{{
		name: "upgrade", begin: signals(syscall.SIGUSR2),
		rest: func(_ *rig, before, now map[string]int) error {
			if now["after-upgrade-record"] == before["after-upgrade-record"] {
				return errors.New("the upgrade is not recorded")
			}
			return nil
		},
	}}
}

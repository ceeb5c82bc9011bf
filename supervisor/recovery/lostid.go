package recovery

import (
	"context"
	"fmt"
	"os"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// LivingMasterID returns the ID of the master whose living workers belong to the state directory dir, or "" if
// there are none. It is for [store.Options].LostID: if every record of the ID is lost, only the workers still have
// it, and a master with another ID would never recognize them.
func LivingMasterID(ctx context.Context, dir string) (string, error) {
	id, err := store.DirID(dir)
	if err != nil {
		return "", fmt.Errorf("ask the living for their master's id: %w", err)
	}
	holders, err := process.Scan(ctx)
	if err != nil {
		return "", fmt.Errorf("ask the living for their master's id: %w", err)
	}
	return masterOf(holders, id.String(), os.Geteuid()), nil
}

// masterOf returns the ID that most of the workers name; among IDs named equally often, the ID of the first holder
// may win.
func masterOf(holders []process.Holder, stateDir string, uid int) string {
	votes := map[string]int{}
	best := ""
	for _, h := range holders {
		// Any user can set these variables, but not in a process of the master's user. A session leader was started
		// as a worker, or by one.
		if h.StateDir != stateDir || h.MasterID == "" || int(h.UID) != uid || h.PID != h.SID {
			continue
		}
		votes[h.MasterID]++
		if best == "" {
			best = h.MasterID
		}
	}
	for id, n := range votes {
		if n > votes[best] {
			best = id
		}
	}
	return best
}

package supervisor

import (
	"context"
	"fmt"
	"os"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// LivingMasterID returns the id of the master that has started the workers which
// live and belong to the state directory dir, or "" where none do. It is for
// [store.Options].LostID: where every record of the id is lost, they are the only
// ones to know it, and under another one they would be strangers for ever.
func LivingMasterID(ctx context.Context, dir string) (string, error) {
	id, err := store.DirID(dir)
	if err != nil {
		return "", fmt.Errorf("ask the living for their master's id: %w", err)
	}
	holders, err := process.Scan(ctx)
	if err != nil {
		return "", fmt.Errorf("ask the living for their master's id: %w", err)
	}
	return masterOf(holders, process.FileID(id).String(), os.Geteuid()), nil
}

// masterOf returns the id that most of the workers name; of two with as many, that
// of the older.
func masterOf(holders []process.Holder, stateDir string, uid int) string {
	votes := map[string]int{}
	best := ""
	for _, h := range holders {
		// Anybody can set variables, but not as our user, and what leads its own
		// session was started as a worker is, or by one.
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

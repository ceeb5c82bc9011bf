package process

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/procfs"
)

// Scan returns every process whose environment contains a worker's token, oldest first, except this process
// itself. A process inside execve shows no environment; Scan reads it again for up to a second.
//
// The result is a hint: open a found process with OpenPID and Verify it.
func Scan(ctx context.Context) ([]Holder, error) {
	c, err := shared.Answer(ctx)
	if err != nil {
		return nil, fmt.Errorf("scan for workers: %w", err)
	}
	found := make([]Holder, 0, len(c.holders))
	for _, h := range c.holders {
		if h, ok := completeHolder(h); ok {
			found = append(found, h)
		}
	}
	sortHolders(found)
	return found, nil
}

func sortHolders(holders []Holder) {
	slices.SortFunc(holders, func(a, b Holder) int {
		return cmp.Or(cmp.Compare(a.StartTicks, b.StartTicks), cmp.Compare(a.PID, b.PID))
	})
}

// completeHolder adds the values from /proc/PID/stat to those from the environment. It returns false if the
// process has died meanwhile.
func completeHolder(h Holder) (_ Holder, ok bool) {
	stat, err := procfs.ReadLife(h.PID)
	if err != nil || stat.Ended() {
		return h, false
	}
	// The folder's owner is the effective UID, even for an undumpable process.
	var folder unix.Stat_t
	if err := unix.Stat("/proc/"+strconv.Itoa(h.PID), &folder); err != nil {
		return h, false
	}
	h.PPID, h.PGID, h.SID = stat.PPID, stat.PGID, stat.SID
	h.State, h.StartTicks, h.UID = stat.State, stat.StartTicks, folder.Uid
	return h, true
}

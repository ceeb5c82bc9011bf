package daemon

import (
	"context"
	"sync"

	"github.com/core-tools/hsu-master/supervisor/process"
)

// reapOrphans starts to reap the orphans that the kernel reparents to this process, once after is closed. The returned
// function stops it.
func reapOrphans(after <-chan struct{}) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var reaper sync.WaitGroup
	reaper.Go(func() {
		select {
		case <-after:
			process.ReapOrphans(ctx)
		case <-ctx.Done():
		}
	})
	return func() {
		cancel()
		reaper.Wait()
	}
}

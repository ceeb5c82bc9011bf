package main

import (
	"context"
	"sync"

	"github.com/core-tools/hsu-master/supervisor/process"
)

// reapOrphans starts to reap the orphans that the kernel reparents to this process. The returned function stops
// it.
func reapOrphans() (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var reaper sync.WaitGroup
	reaper.Go(func() { process.ReapOrphans(ctx) })
	return func() {
		cancel()
		reaper.Wait()
	}
}

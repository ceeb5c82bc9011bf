package commit

import (
	"runtime"
	"time"
)

const (
	// fewCallers is the number of callers from which on the committer waits. Below it, the processors are idle during
	// a wait.
	fewCallers = 8
	// manyCallers is the number of callers beyond which another one saves hardly anything.
	manyCallers = 64
	// longestGather bounds the wait if commits take long.
	longestGather = time.Millisecond
)

// gatherer makes the committer wait for callers that are about to count, so that they share its sync.
//
// Callers that a commit has released usually count again soon, but the next commit would take only those that arrived
// during the last one. So with many callers there would be twice as many syncs as needed, and a sync costs as much
// processor time as several requests. The committer therefore waits until most callers have joined. The wait lasts at
// most as long as the last commit took: if the callers do not return, it costs the others no more than the commit that
// would otherwise be in front of theirs.
//
// Invariant: only batches of counts wait, and only after a commit that at least fewCallers took part in or waited for.
type gatherer struct {
	queue *queue
	timer *time.Timer

	callers int           // of the last commit, and those that joined the next batch meanwhile
	took    time.Duration // by that commit
}

func newGatherer(q *queue) *gatherer {
	g := &gatherer{queue: q, timer: time.NewTimer(0)}
	g.timer.Stop()
	return g
}

// observe learns from a commit that has just ended and whose callers, of which there are n, are not released yet.
func (g *gatherer) observe(n int, took time.Duration) {
	g.callers, g.took = n+g.queue.waiting(), took
}

// wait returns when the next batch should be taken.
func (g *gatherer) wait() {
	// The caller that sent the wake-up also made this goroutine the next one to run. Yield first to the other runnable
	// goroutines: the last batch has just released them, and most will join this batch. If no other goroutine can run,
	// Gosched causes no delay.
	runtime.Gosched()
	most := g.callers - g.callers/4
	if g.callers < fewCallers || g.took <= 0 || !g.queue.gather(min(most, manyCallers)) {
		return
	}
	g.timer.Reset(min(g.took, longestGather))
	select {
	case <-g.queue.wake:
		g.timer.Stop()
	case <-g.timer.C:
	}
}

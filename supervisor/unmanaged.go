package supervisor

import (
	"context"

	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/unmanaged"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// newWatched returns the set of the processes that something else starts.
func (s *Supervisor) newWatched(checks *probe.Scheduler) *unmanaged.Set {
	return unmanaged.New(unmanaged.Options{
		Store: s.opts.Store, Checks: checks, Log: s.log, BootID: s.env.BootID,
		Own: func() process.Own {
			own := process.Own{MasterID: s.opts.Store.MasterID(), StateDir: s.opts.Store.StateDirID().String()}
			for _, w := range s.set.list() {
				if info := w.Info(); info != nil && info.Instance != nil && info.Instance.PID != 0 {
					own.Leaders = append(own.Leaders, info.Instance.PID)
				}
			}
			return own
		},
		Changed: s.services.Changed,
		Run: func(ctx context.Context, u *unit.Spec, id string, command []string) (oneshot.Ran, error) {
			return worker.RunCheck(ctx, s.env.Launcher, u, id, command)
		},
	})
}

// taken returns a function that reports whether a worker of the units has an id.
func taken(units []unit.Spec) func(id string) bool {
	ids := map[string]bool{}
	for _, u := range units {
		if !u.Starts() {
			continue
		}
		for i := range u.Replicas {
			ids[u.WorkerID(i)] = true
		}
	}
	return func(id string) bool { return ids[id] }
}

// until returns a function that returns a channel that is closed when the worker that has an id is stopped, nil if none
// has it: a unit that was started and is not any more keeps its id until then.
func until(surplus []*worker.Worker) func(id string) <-chan struct{} {
	return func(id string) <-chan struct{} {
		for _, w := range surplus {
			if w.ID() == id {
				return w.Finished()
			}
		}
		return nil
	}
}

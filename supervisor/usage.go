package supervisor

import (
	"context"
	"log/slog"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/usage"
)

// Usage returns the usage of each worker, unmanaged ones included. A worker is missing if it has no
// process or if nothing can be seen of it, and all are while the master recovers them.
func (s *Supervisor) Usage(ctx context.Context) map[string]usage.Usage {
	if s.Status() == Recovering {
		return nil
	}
	used, err := s.meter.Read(ctx)
	if err != nil {
		s.log.Debug("usage of workers not read", "error", err)
	}
	return used
}

// subjects returns the processes that are measured.
func (s *set) subjects() []launcher.Subject {
	workers := s.list()
	subjects := make([]launcher.Subject, 0, len(workers))
	for _, w := range workers {
		if info := w.Info(); info != nil && info.Instance != nil && info.Instance.PID != 0 {
			subjects = append(subjects, launcher.Subject{Worker: info.ID, Instance: *info.Instance})
		}
	}
	for _, info := range s.unmanaged() {
		if found := info.Found; found != nil {
			subjects = append(subjects, launcher.Subject{
				Worker: info.ID, Instance: records.Instance{Process: found.Process},
			})
		}
	}
	return subjects
}

// limited returns the workers of the units with a limit of memory.
func (s *set) limited(log *slog.Logger) []usage.Limited {
	limits := map[string]int64{}
	for _, u := range s.specs() {
		if u.MemoryRestart > 0 {
			limits[u.Name] = u.MemoryRestart
		}
	}
	if len(limits) == 0 {
		return nil
	}
	var workers []usage.Limited
	for _, w := range s.list() {
		info := w.Info()
		if info == nil || limits[info.Unit] == 0 {
			continue
		}
		token := ""
		if info.Instance != nil {
			token = info.Instance.Token
		}
		workers = append(workers, usage.Limited{
			Worker: info.ID, Unit: info.Unit, Limit: limits[info.Unit],
			Restart: func(ctx context.Context, resident int64) bool {
				begun, err := w.Outgrown(ctx, token, resident)
				if err != nil {
					log.Debug("worker not restarted for its memory", "worker", info.ID, "error", err)
				}
				return begun
			},
		})
	}
	return workers
}

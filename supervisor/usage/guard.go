package usage

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

const (
	// interval is the time between two readings of the guard.
	interval = 5 * time.Second
	// strikes is the number of readings in a row above the limit after which a worker is restarted. One is not enough:
	// between fork and exec the memory of a process counts twice.
	strikes = 2
)

// Limited is a worker whose unit limits its memory.
type Limited struct {
	Worker, Unit string
	Limit        int64 // in bytes
	// Restart has the worker restarted because its family uses so much. It reports whether that has begun.
	Restart func(ctx context.Context, resident int64) bool
}

// Guard has the workers restarted that use more memory than their units allow: at most one of a unit at each reading,
// so that replicas that grow alike do not end at the same time. It reads nothing as long as no unit has a limit.
type Guard struct {
	meter   *Meter
	limited func() []Limited
	log     *slog.Logger
	changed chan struct{}     // has room for one signal
	struck  map[string]strike // by worker
	blind   bool              // the last reading failed, which is logged
}

// strike counts the readings in a row above the limit of one instance.
type strike struct {
	instance instance
	readings int
}

// NewGuard returns a guard of the workers that limited returns at each reading.
func NewGuard(m *Meter, limited func() []Limited, log *slog.Logger) *Guard {
	return &Guard{meter: m, limited: limited, log: log, changed: make(chan struct{}, 1), struck: map[string]strike{}}
}

// Changed must be called when a worker may have got a limit.
func (g *Guard) Changed() {
	select {
	case g.changed <- struct{}{}:
	default: // an earlier signal is pending
	}
}

// Serve watches the workers until ctx ends.
func (g *Guard) Serve(ctx context.Context) {
	for {
		var due <-chan time.Time
		if len(g.limited()) > 0 {
			due = time.After(interval)
		}
		for waits := true; waits; {
			select {
			case <-due:
				g.check(ctx)
				waits = false
			case <-g.changed:
				waits = due != nil // a change does not put a reading off
			case <-ctx.Done():
				return
			}
		}
	}
}

// outgrown is a worker that is above its limit.
type outgrown struct {
	Limited
	resident int64
}

// check makes one reading and has workers restarted.
func (g *Guard) check(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, interval)
	defer cancel()
	workers := g.limited()
	used, err := g.meter.Read(ctx)
	if err != nil {
		if !g.blind && ctx.Err() == nil {
			g.log.Warn("memory of workers not read", "error", err)
			g.blind = true
		}
		return
	}
	g.blind = false
	var wg sync.WaitGroup
	for _, unit := range g.strike(workers, used) {
		wg.Go(func() {
			for _, w := range unit {
				if w.Restart(ctx, w.resident) {
					return
				}
			}
		})
	}
	wg.Wait()
}

// strike counts the reading. It returns the workers that have been above their limits often enough, by unit, and of
// each unit the one first that is most above.
func (g *Guard) strike(workers []Limited, used map[string]Usage) map[string][]outgrown {
	struck, units := make(map[string]strike), make(map[string][]outgrown)
	for _, w := range workers {
		u, known := used[w.Worker]
		if !known || u.Resident <= w.Limit {
			continue
		}
		now := strike{instance: u.instance, readings: 1}
		if before := g.struck[w.Worker]; before.instance == now.instance {
			now.readings += before.readings
		}
		struck[w.Worker] = now
		if now.readings >= strikes {
			units[w.Unit] = append(units[w.Unit], outgrown{w, u.Resident})
		}
	}
	g.struck = struck
	for _, list := range units {
		slices.SortStableFunc(list, func(a, b outgrown) int { return cmp.Compare(b.resident, a.resident) })
	}
	return units
}

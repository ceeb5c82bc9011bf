// Package usage measures the resources of workers: memory, processor time, descriptors, threads. A [Meter] reads only
// when it is asked, and one reading serves all that ask within a second. A [Guard] has workers restarted that use more
// memory than their units allow.
package usage

import (
	"context"
	"fmt"
	"time"

	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/process"
)

const (
	// fresh is how long a reading serves further callers.
	fresh = time.Second
	// longestWindow is the longest time between two readings whose difference is still a recent use of the processor.
	longestWindow = time.Minute
	// patience bounds one reading.
	patience = 2 * time.Second
)

// Usage is the use of resources by the family of a worker.
type Usage struct {
	process.Resources // CPU never decreases
	// Share is the use of the processor over Window, the time since the reading before; 1 is a whole core. Window is 0
	// if there was no such reading within a minute.
	Share  float64
	Window time.Duration

	instance instance
}

// instance identifies the process of a worker.
type instance struct {
	token string
	pid   int
	start uint64
}

func instanceOf(s launcher.Subject) instance {
	return instance{token: s.Instance.Token, pid: s.Instance.PID, start: s.Instance.StartTicks}
}

// Meter reads what workers use. Its methods may be called from any goroutine.
type Meter struct {
	subjects func() []launcher.Subject
	measure  func(context.Context, []launcher.Subject) ([]process.Resources, error)
	turn     chan struct{} // has room for the caller that reads
	last     reading       // of the holder of turn
}

// reading is the result of one pass over all processes. It is not changed any more.
type reading struct {
	at time.Time
	of map[string]Usage // by worker
}

// NewMeter returns a meter of the subjects at the time of each reading.
func NewMeter(
	subjects func() []launcher.Subject,
	measure func(context.Context, []launcher.Subject) ([]process.Resources, error),
) *Meter {
	return &Meter{subjects: subjects, measure: measure, turn: make(chan struct{}, 1)}
}

// Read returns what each worker uses, or used up to a second ago. A worker of which nothing can be seen is missing, and
// so is one whose process is another than at the reading. The caller must not change the map.
func (m *Meter) Read(ctx context.Context) (map[string]Usage, error) {
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("read the usage of workers: %w", context.Cause(ctx))
	}
	subjects := m.subjects()
	if time.Since(m.last.at) >= fresh {
		next, err := m.read(ctx, subjects)
		if err != nil {
			return nil, err
		}
		m.last = next
	}
	return m.last.present(subjects), nil
}

func (m *Meter) read(ctx context.Context, subjects []launcher.Subject) (reading, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	used, err := m.measure(ctx, subjects)
	if err != nil {
		return reading{}, fmt.Errorf("read the usage of workers: %w", err)
	}
	next := reading{at: time.Now(), of: make(map[string]Usage, len(subjects))}
	for i, s := range subjects {
		if used[i].Processes > 0 {
			u := Usage{Resources: used[i], instance: instanceOf(s)}
			next.of[s.Worker] = u.since(m.last.of[s.Worker], next.at.Sub(m.last.at))
		}
	}
	return next, nil
}

// since returns the usage with what follows from an earlier one. The processor time of a family shrinks when a member
// ends that no parent has reaped yet, and the total must not shrink with it.
func (u Usage) since(before Usage, passed time.Duration) Usage {
	if before.instance != u.instance {
		return u
	}
	u.CPU = max(u.CPU, before.CPU)
	if passed <= longestWindow {
		u.Share, u.Window = (u.CPU-before.CPU).Seconds()/passed.Seconds(), passed
	}
	return u
}

// present returns the usage of the workers whose process is still the one that was measured.
func (r reading) present(subjects []launcher.Subject) map[string]Usage {
	present := make(map[string]Usage, len(r.of))
	for _, s := range subjects {
		if u, measured := r.of[s.Worker]; measured && u.instance == instanceOf(s) {
			present[s.Worker] = u
		}
	}
	return present
}

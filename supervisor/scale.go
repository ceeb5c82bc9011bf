package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// MaxReplicas is the largest number of replicas that [Supervisor.Scale] accepts.
const MaxReplicas = 1000

var (
	// ErrNoUnit is returned by [Supervisor.Scale] if the set has no such unit.
	ErrNoUnit = errors.New("no such unit")
	// ErrReplicas is returned by [Supervisor.Scale] if the unit cannot have that many replicas.
	ErrReplicas = errors.New("wrong number of replicas")
	// ErrNotStarted is returned by [Supervisor.Scale] if the unit is unmanaged.
	ErrNotStarted = errors.New("an unmanaged unit is not scaled, since another program starts it")
	// ErrDisabled is returned by [Supervisor.Scale] if the unit is disabled.
	ErrDisabled = errors.New("the unit is disabled")
)

// Scaling is a change of the number of replicas that is recorded and under way.
type Scaling struct {
	Before     int // the number of replicas before
	Configured int // the number that the unit itself says
	rollout    rollout
}

// Scale gives a unit n replicas in place of the configured number, until [Supervisor.Apply] or the next start changes
// that. It records the number and then starts the missing workers or stops the surplus ones, as Apply does; see
// [Scaling.Wait]. A supervisor that is started with the same units has n replicas. If Scale fails, it starts and stops
// no worker; after [store.ErrUnavailable] or the end of ctx, the number may be recorded.
func (s *Supervisor) Scale(ctx context.Context, name string, n int) (Scaling, error) {
	if n < 0 || n > MaxReplicas {
		return Scaling{}, fmt.Errorf("%w: %d: must be 0 to %d", ErrReplicas, n, MaxReplicas)
	}
	done, err := s.changes.begin(ctx)
	if err != nil {
		return Scaling{}, err
	}
	defer done()
	configured := s.changes.configured
	recs := s.changes.records()
	i := slices.IndexFunc(recs, func(u records.Unit) bool { return u.Name == name })
	if i < 0 {
		return Scaling{}, fmt.Errorf("%w: %q", ErrNoUnit, name)
	}
	switch {
	case configured[i].Disabled:
		return Scaling{}, fmt.Errorf("%w: %q", ErrDisabled, name)
	case recs[i].Disabled:
		return Scaling{}, fmt.Errorf("%w by an operator: %q", ErrDisabled, name)
	case !configured[i].Starts():
		return Scaling{}, fmt.Errorf("%w: unit %s", ErrNotStarted, name)
	}
	if err := recovery.WithReplicas(&configured[i], n).CheckFields(); err != nil {
		return Scaling{}, fmt.Errorf("%w: %w", ErrReplicas, err)
	}
	scaling := Scaling{Before: recs[i].Wanted(), Configured: recs[i].Replicas}
	recs[i].Scale, recs[i].Changed = nil, time.Now()
	if n != recs[i].Replicas {
		recs[i].Scale = &n
	}
	scaling.rollout, err = s.changes.apply(ctx, configured, recs, records.Event{
		Time: recs[i].Changed, Unit: name, Type: eventtype.Scale, Operator: OperatorOf(ctx),
		Detail: fmt.Sprintf("%s: %d replicas after %d, configured %d", name, n, scaling.Before, scaling.Configured),
	})
	if err != nil {
		return Scaling{}, err
	}
	s.log.Info("unit scaled", "unit", name, "replicas", n, "before", scaling.Before, "configured", scaling.Configured)
	return scaling, nil
}

// Wait returns when the new workers are ready and the surplus ones have been stopped and forgotten. It fails as soon as
// a new one has failed or cannot be started. The workers do not depend on a caller that waits.
func (c Scaling) Wait(ctx context.Context) error {
	if err := c.rollout.awaitAdded(ctx); err != nil {
		return err
	}
	return c.rollout.awaitSurplus(ctx)
}

// Added returns the ids of the new workers.
func (c Scaling) Added() []string { return idsOf(c.rollout.added) }

// Surplus returns the ids of the workers that are stopped for good, including those of earlier changes.
func (c Scaling) Surplus() []string { return idsOf(c.rollout.surplus) }

func idsOf(workers []*worker.Worker) []string {
	ids := make([]string, 0, len(workers))
	for _, w := range workers {
		ids = append(ids, w.ID())
	}
	return ids
}

//go:build e2e && crash && linux

package crash

import (
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/store/storepb"
)

// Operations of a unit with a schedule.

func operationsOfSchedules() []*operation {
	return []*operation{
		{
			name: "run of a schedule", file: true, scheduled: true, life: 12, launched: true, prepare: isDue,
			rest: func(_ *rig, _, now map[string]int) error {
				if now["after-exit-record"] == 0 {
					return errors.New("the run has not ended")
				}
				return nil
			},
		},
	}
}

// isDue has a due time of the unit have come while no master runs.
func isDue(r *rig) error {
	if err := r.masters.kill(); err != nil {
		return err
	}
	s := r.scheduled
	if s.due.IsZero() {
		s.due = time.Now().Add(-24 * time.Hour).Truncate(time.Minute).UTC()
	}
	s.due, s.before = s.due.Add(time.Minute), len(s.begun())
	return r.edit(lateWorker, func(w *storepb.Worker) error {
		w.Due.Next = timestamppb.New(s.due)
		return nil
	})
}

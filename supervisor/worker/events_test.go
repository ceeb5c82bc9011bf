package worker

import (
	"testing"

	"github.com/core-tools/hsu-master/store/records"
)

// Each status has an event, whose type in the history is the status itself.
func TestEachStatusHasAnEvent(t *testing.T) {
	for _, s := range []records.Status{
		records.StatusStarting, records.StatusRunning, records.StatusUnhealthy, records.StatusStopping,
		records.StatusStopped, records.StatusBackoff, records.StatusFailed, records.StatusCompleted,
		records.StatusWaiting, records.StatusScheduled,
	} {
		if e := statusEvents[s]; e.name != string(s) || e.message == "" {
			t.Errorf("the event of status %s is %+v", s, e)
		}
	}
}

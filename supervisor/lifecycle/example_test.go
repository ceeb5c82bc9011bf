package lifecycle_test

import (
	"fmt"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// A running worker's process ends. Its family is killed before anything is started again, and the policy of its unit
// then decides when.
func Example() {
	policy := lifecycle.PolicyOf(unit.Spec{}.WithDefaults())
	now := time.Hour // since boot
	s := lifecycle.State{
		Wanted: true, Slot: lifecycle.Occupied, Ready: true, Status: records.StatusRunning,
		History: records.RestartHistory{ReadySince: now - time.Second},
	}
	s, action := lifecycle.Next(s, lifecycle.Event{Kind: lifecycle.EvDied}, policy, now)
	fmt.Println(action == lifecycle.ActKill, s.Ready)

	s, action = lifecycle.Next(s, lifecycle.Event{Kind: lifecycle.EvExited, Reason: "exited with code 1"}, policy, now)
	fmt.Println(action == lifecycle.ActBackOff, s.Status, s.Reason, s.History.RetryAt-now)
	// Output:
	// true false
	// true backoff exited with code 1 100ms
}

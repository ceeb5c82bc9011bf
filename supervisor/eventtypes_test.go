package supervisor

import (
	"slices"
	"testing"

	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store/records"
)

// The types of events that are made of a verb or of a rollout are in the list that "events --type" and on_event accept.
func TestTypesOfActsAreListed(t *testing.T) {
	types := []string{
		string(VerbStart), string(VerbStop), string(VerbRestart), string(VerbSignal),
		string(VerbEnable), string(VerbDisable),
	}
	for _, act := range []records.RolloutAct{records.ActReload, records.ActRestart} {
		for _, what := range []string{rolloutResumed, rolloutCompleted, rolloutStopped} {
			types = append(types, string(act)+what)
		}
	}
	for _, name := range types {
		if !slices.Contains(eventtype.Names(), name) {
			t.Errorf("events of type %q are recorded, and no command accepts it", name)
		}
	}
}

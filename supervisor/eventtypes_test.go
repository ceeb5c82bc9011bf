package supervisor

import (
	"slices"
	"testing"

	"github.com/core-tools/hsu-master/internal/eventtype"
)

// The types of events that are made of a verb or of a rollout are in the list that "events --type" and on_event accept.
func TestTypesOfActsAreListed(t *testing.T) {
	types := []string{
		string(VerbStart), string(VerbStop), string(VerbRestart), string(VerbSignal),
		string(VerbEnable), string(VerbDisable),
	}
	for _, outcomes := range rolloutOutcomes {
		types = append(types, outcomes.resumed, outcomes.completed, outcomes.stopped)
	}
	for _, name := range types {
		if !slices.Contains(eventtype.Names(), name) {
			t.Errorf("events of type %q are recorded, and no command accepts it", name)
		}
	}
}
